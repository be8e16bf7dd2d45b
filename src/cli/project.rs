//! `project`: adding projects and looking after their keys.

use std::{
    io::{self, Write as _},
    sync::Arc,
};

use clap::Subcommand;
use serde_json::{Value, json};

use super::{
    Verdict, guard,
    key::KeyArgs,
    output::{BOLD, DIM, GREEN, Output, YELLOW, ago, at, counted},
    wiring::Wiring,
};
use crate::{
    asc::{Meter, Signer},
    catalog::OwnLimits,
    clock,
    credential::Identity,
    diagnosis::{Code, Diagnosis},
    onboard::{self, Wanted},
    project::{App, Project, ProjectId},
    schedule::Cron,
    store::{self, Store},
    sync::signer,
};

#[derive(Subcommand)]
pub(super) enum Command {
    /// Verify a key, find its app, and add the project
    Add {
        /// Your name for the project
        id: ProjectId,
        #[command(flatten)]
        key: KeyArgs,
    },
    /// List the projects
    List,
    /// Show one project
    Show {
        /// The project
        id: ProjectId,
    },
    /// Ask Apple whether the stored key still works
    Verify {
        /// The project
        id: ProjectId,
    },
    /// Replace a project's key, once the new one has been verified; when it fails, the old one goes on
    SetKey {
        /// The project
        id: ProjectId,
        #[command(flatten)]
        key: KeyArgs,
    },
    /// Leave a project alone until it is resumed
    Pause {
        /// The project
        id: ProjectId,
    },
    /// Sync a project at times of its own
    Schedule {
        /// The project
        id: ProjectId,
        /// Minute, hour, day, month and weekday in the schedule's time zone, such as '30 4 * * *'
        #[arg(required_unless_present = "default", conflicts_with = "default")]
        cron: Option<String>,
        /// Sync it by the schedule of worker.toml again
        #[arg(long)]
        default: bool,
    },
    /// Show by which limits a project's removals are held, or give it limits of its own
    Guard(guard::GuardArgs),
    /// Sync a project again that is paused, or was set aside
    Resume {
        /// The project
        id: ProjectId,
    },
    /// Remove a project with its key, catalog, history and runs
    Remove {
        /// The project
        id: ProjectId,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
}

impl Command {
    pub(super) async fn run(self, wiring: &Wiring, output: &Output) -> anyhow::Result<Verdict> {
        match self {
            Self::Add { id, key } => add(id, &key, wiring, output).await,
            Self::List => list(&*wiring.store().await?, output).await,
            Self::Show { id } => show(&id, &*wiring.store().await?, output).await,
            Self::Verify { id } => verify(&id, wiring, output).await,
            Self::SetKey { id, key } => set_key(&id, &key, wiring, output).await,
            Self::Pause { id } => {
                let store = wiring.store().await?;
                store.pause(&id, clock::now()).await?;
                output.say(format_args!(
                    "{BOLD}{id}{BOLD:#} is paused; 'catalog-sync project resume {id}' resumes it"
                ))?;
                answer_project(&id, &*store, output).await
            }
            Self::Schedule { id, cron, .. } => {
                let cron: Option<Cron> = cron.map(|cron| cron.parse()).transpose()?;
                let store = wiring.store().await?;
                store.set_cron(&id, cron.as_ref()).await?;
                output.say(match &cron {
                    Some(cron) => format!("{BOLD}{id}{BOLD:#} is due at '{cron}'"),
                    None => format!("{BOLD}{id}{BOLD:#} is due by the schedule of all"),
                })?;
                answer_project(&id, &*store, output).await
            }
            Self::Guard(args) => guard::guard(&args, wiring, output).await,
            Self::Resume { id } => {
                let store = wiring.store().await?;
                store.resume(&id, clock::now()).await?;
                output.say(format_args!("{BOLD}{id}{BOLD:#} is resumed"))?;
                answer_project(&id, &*store, output).await
            }
            Self::Remove { id, yes } => remove(&id, yes, &*wiring.store().await?, output).await,
        }
    }
}

async fn answer_project(
    id: &ProjectId,
    store: &dyn Store,
    output: &Output,
) -> anyhow::Result<Verdict> {
    output.json(&store.load_project(id).await?)?;
    Ok(Verdict::Done)
}

pub(super) async fn add(
    id: ProjectId,
    args: &KeyArgs,
    wiring: &Wiring,
    output: &Output,
) -> anyhow::Result<Verdict> {
    let credential = args.read()?;
    let store = wiring.store().await?;
    let vault = Arc::new(wiring.vault(&*store).await?);
    match store.load_project(&id).await {
        Ok(_) => return Err(store::Error::ProjectExists(id).into()),
        Err(store::Error::UnknownProject { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    let sealed = vault.seal(&id, &credential)?;
    let Identity { key_id, issuer_id } = credential.identity();
    // From here on it is sealed.
    drop(credential);
    let signer = signer(&vault, &id, &sealed)?;
    let Some((app, apps)) = verified(signer, args.wanted(), wiring, output).await? else {
        return Ok(Verdict::Undecided);
    };
    let project = Project {
        id,
        app,
        key_id,
        issuer_id,
        cron: None,
        guard: OwnLimits::default(),
        paused_at: None,
        created_at: clock::now(),
    };
    store.add_project(&project, &sealed).await?;
    let id = &project.id;
    output.say(format_args!(
        "{GREEN}added{GREEN:#} {BOLD}{id}{BOLD:#}: {} ({}, {})",
        project.app.name, project.app.id, project.app.bundle_id
    ))?;
    let shared = notice_sharing(&project, &*store, output).await?;
    args.warn_of_exposed_file(output)?;
    output.say(format_args!("Next: catalog-sync sync {id}"))?;
    output.json(&json!({ "project": project, "apps": apps, "notices": shared }))?;
    Ok(Verdict::Done)
}

async fn set_key(
    id: &ProjectId,
    args: &KeyArgs,
    wiring: &Wiring,
    output: &Output,
) -> anyhow::Result<Verdict> {
    let store = wiring.store().await?;
    let before = store.load_project(id).await?;
    if !args.has_key() {
        return Err(Diagnosis::of(Code::KeyIncomplete)
            .advise("Give the new .p8 with --private-key. If it was lost, 'catalog-sync explain key_lost' says what to do.")
            .into());
    }
    let credential = args.read()?;
    let vault = Arc::new(wiring.vault(&*store).await?);
    let sealed = vault.seal(id, &credential)?;
    drop(credential);
    let signer = signer(&vault, id, &sealed)?;
    let mut wanted = args.wanted();
    if wanted.app_id.is_none() && wanted.bundle_id.is_none() {
        wanted.app_id = Some(before.app.id.clone());
    }
    let Some((app, apps)) = verified(signer, wanted, wiring, output).await? else {
        return Ok(Verdict::Undecided);
    };
    if app.id != before.app.id {
        let sentence = format!(
            "Project '{id}' keeps the catalog of {} ({}), and this key is for {} ({}).",
            before.app.name, before.app.id, app.name, app.id
        );
        return Err(Diagnosis::new(Code::AppMismatch, sentence)
            .advise("Add another project for the other app.")
            .into());
    }
    store.replace_key(id, &app, &sealed, clock::now()).await?;
    let project = store.load_project(id).await?;
    output.say(format_args!(
        "{GREEN}replaced{GREEN:#} the key of {BOLD}{id}{BOLD:#}: {} now",
        project.key_id
    ))?;
    let shared = notice_sharing(&project, &*store, output).await?;
    args.warn_of_exposed_file(output)?;
    output.json(&json!({ "project": project, "apps": apps, "notices": shared }))?;
    Ok(Verdict::Done)
}

async fn verify(id: &ProjectId, wiring: &Wiring, output: &Output) -> anyhow::Result<Verdict> {
    let store = wiring.store().await?;
    let vault = Arc::new(wiring.vault(&*store).await?);
    let project = store.load_project(id).await?;
    let signer = signer(&vault, id, &store.load_key(id).await?)?;
    let wanted = Wanted {
        app_id: Some(project.app.id.clone()),
        bundle_id: None,
    };
    let Some((app, apps)) = verified(signer, wanted, wiring, output).await? else {
        return Ok(Verdict::Undecided);
    };
    output.say(format_args!(
        "{GREEN}works{GREEN:#}: {} ({}, {}) can be read",
        app.name, app.id, app.bundle_id
    ))?;
    let shared = notice_sharing(&project, &*store, output).await?;
    output.json(&json!({ "project": project, "apps": apps, "notices": shared }))?;
    Ok(Verdict::Done)
}

/// Verifies a key and finds its app, asking on a terminal when there are several; none when nobody could be asked.
async fn verified(
    signer: Signer,
    wanted: Wanted,
    wiring: &Wiring,
    output: &Output,
) -> anyhow::Result<Option<(App, Vec<App>)>> {
    let visible =
        onboard::list_apps(&wiring.client()?, signer, &Arc::new(Meter::default())).await?;
    let chosen = visible.choose(&wanted)?;
    show_apps(&visible.key(), visible.apps(), chosen.as_ref(), output)?;
    let app = match chosen {
        Some(app) => app,
        None if output.can_ask() => ask_which(visible.apps())?,
        None => {
            output
                .say("Nothing was stored. Say which app is meant with --app-id or --bundle-id.")?;
            output.json(&json!({ "decision": "several_apps", "apps": visible.apps() }))?;
            return Ok(None);
        }
    };
    visible.prove(&app).await?;
    Ok(Some((app, visible.apps().to_vec())))
}

fn show_apps(key: &str, apps: &[App], chosen: Option<&App>, output: &Output) -> io::Result<()> {
    output.say(format_args!(
        "{} visible to {key}:",
        counted(apps.len() as u64, "app")
    ))?;
    for (index, app) in apps.iter().enumerate() {
        let mark = if chosen == Some(app) { "*" } else { " " };
        output.say(format_args!(
            "{mark} {:>2}  {}  {DIM}{}  {}{DIM:#}",
            index + 1,
            app.name,
            app.id,
            app.bundle_id
        ))?;
    }
    Ok(())
}

fn ask_which(apps: &[App]) -> anyhow::Result<App> {
    let mut answer = String::new();
    loop {
        write!(anstream::stderr(), "Which app? [1-{}] ", apps.len())?;
        answer.clear();
        anyhow::ensure!(
            io::stdin().read_line(&mut answer)? > 0,
            "no app was chosen; nothing was stored"
        );
        let chosen = answer
            .trim()
            .parse::<usize>()
            .ok()
            .and_then(|number| apps.get(number.checked_sub(1)?));
        if let Some(app) = chosen {
            return Ok(app.clone());
        }
        writeln!(
            anstream::stderr(),
            "Type the number that stands before the app."
        )?;
    }
}

async fn notice_sharing(
    project: &Project,
    store: &dyn Store,
    output: &Output,
) -> anyhow::Result<Vec<Value>> {
    let others = store.list_sharing_key(&project.id, &project.key_id).await?;
    if others.is_empty() {
        return Ok(Vec::new());
    }
    let names: Vec<_> = others.iter().map(ToString::to_string).collect();
    let notice = Diagnosis::new(
        Code::SharedKey,
        format!(
            "Key {} is also used by {}.",
            project.key_id,
            names.join(", ")
        ),
    );
    output.say(format_args!(
        "{YELLOW}{}{YELLOW:#}: {} {}",
        notice.code, notice.sentence, notice.advice
    ))?;
    Ok(vec![json!(notice)])
}

async fn list(store: &dyn Store, output: &Output) -> anyhow::Result<Verdict> {
    let projects = store.list_projects().await?;
    output.json(&projects)?;
    if projects.is_empty() {
        output.say("no projects yet: catalog-sync project add ID --key-id .. --issuer-id .. --private-key FILE")?;
        return Ok(Verdict::Done);
    }
    let rows = projects
        .into_iter()
        .map(|project| {
            vec![
                project.id.to_string(),
                project.app.name,
                project.app.bundle_id,
                project.app.id,
                project.key_id,
                project.paused_at.map_or_else(
                    || "active".to_owned(),
                    |since| format!("paused {}", ago(Some(since))),
                ),
            ]
        })
        .collect();
    output.table(
        &["project", "app", "bundle_id", "app_id", "key_id", "state"],
        rows,
    )?;
    Ok(Verdict::Done)
}

async fn show(id: &ProjectId, store: &dyn Store, output: &Output) -> anyhow::Result<Verdict> {
    let project = store.load_project(id).await?;
    output.json(&project)?;
    output.say(format_args!("{BOLD}{id}{BOLD:#}"))?;
    output.say(format_args!(
        "  app      {} ({}, {})",
        project.app.name, project.app.id, project.app.bundle_id
    ))?;
    output.say(format_args!("  key      {}", project.key_id))?;
    output.say(format_args!(
        "  issuer   {}",
        project
            .issuer_id
            .as_deref()
            .unwrap_or("none: an individual key")
    ))?;
    output.say(format_args!("  added    {}", at(project.created_at)))?;
    if let Some(since) = project.paused_at {
        output.say(format_args!("  paused   since {}", at(since)))?;
    }
    if !project.guard.is_empty() {
        output.say(format_args!(
            "  guard    its own: {}",
            guard::listed(&project.guard)
        ))?;
    }
    notice_sharing(&project, store, output).await?;
    Ok(Verdict::Done)
}

async fn remove(
    id: &ProjectId,
    yes: bool,
    store: &dyn Store,
    output: &Output,
) -> anyhow::Result<Verdict> {
    let project = store.load_project(id).await?;
    if !yes {
        let what = format!(
            "the key, catalog, history and runs of '{id}' ({}) would be removed for good",
            project.app.name
        );
        if !output.can_ask() {
            output.say(format_args!("Not removed: {what}. Say so with --yes."))?;
            output.json(&json!({ "decision": "confirm", "project": project }))?;
            return Ok(Verdict::Undecided);
        }
        write!(
            anstream::stderr(),
            "{what}. Type the project's id to go on: "
        )?;
        let mut answer = String::new();
        io::stdin().read_line(&mut answer)?;
        if answer.trim() != id.as_str() {
            output.say("Not removed.")?;
            return Ok(Verdict::Undecided);
        }
    }
    store.remove_project(id).await?;
    output.say(format_args!("removed {BOLD}{id}{BOLD:#}"))?;
    output.json(&json!({ "removed": project }))?;
    Ok(Verdict::Done)
}
