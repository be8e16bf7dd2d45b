//! `demo`: the main job from a key to SQL, against a simulated App Store Connect, in a folder that is gone afterwards.
//!
//! Every step is the command itself, with the same code behind it as when it is typed.

use std::{fs, io};

use anyhow::Context as _;
use tempfile::TempDir;

use super::{
    Verdict, catalog, history,
    output::{BOLD, DIM, Output},
    project, setup, status, sync,
    wiring::Wiring,
};
use crate::{
    config::{self, Config},
    project::ProjectId,
    simulator::{App, InAppPurchase, Options, Simulator, State},
    sync::Engine,
    vault::Source,
};

/// The simulated app.
const APP_ID: &str = "1600000001";

/// Shows everything once, unless it is interrupted; leaves nothing behind either way.
pub(super) async fn demo(output: &Output) -> anyhow::Result<Verdict> {
    tokio::select! {
        shown = show(output) => shown.map(|()| Verdict::Done),
        interrupted = tokio::signal::ctrl_c() => {
            interrupted?;
            anyhow::bail!("interrupted; nothing was left behind")
        }
    }
}

/// The simulated App Store Connect, and a folder for everything else.
struct Stage<'a> {
    simulator: Simulator,
    folder: TempDir,
    wiring: Wiring,
    id: ProjectId,
    output: &'a Output,
}

async fn show(output: &Output) -> anyhow::Result<()> {
    output.gather();
    let stage = Stage::set(output).await?;
    stage.hand_over_a_key().await?;
    let engine = stage.wiring.engine().await?;
    stage.sync_first(&engine).await?;
    stage.edit_and_sync(&engine).await?;
    stage.lose_half(&engine).await?;
    stage.tell_what_it_cost(&engine).await?;

    drop(engine);
    stage.simulator.stop().await;
    stage.folder.close()?;
    output.say(
        "\nThat was all; nothing was left behind. The README says how to go on with a real key.",
    )?;
    output.finish()
}

impl<'a> Stage<'a> {
    /// Starts the simulator over HTTPS, and makes a configuration, a master key and a database in a temporary folder.
    async fn set(output: &'a Output) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new()
            .prefix("catalog-sync-demo-")
            .tempdir()?;
        let mut state = State::sample();
        state
            .app_mut(APP_ID)
            .context("the sample has its app")?
            .in_app_purchases
            .extend(badges());
        let simulator = Simulator::start_with(
            state,
            Options {
                https: true,
                ..Options::default()
            },
        )
        .await?;

        let mut config = Config::default();
        let ca_file = folder.path().join("ca.pem");
        fs::write(&ca_file, simulator.ca_pem().unwrap_or_default())?;
        simulator
            .base_url()
            .clone_into(&mut config.app_store.base_url);
        config.app_store.ca_file = ca_file;
        config.store.url = format!("sqlite:{}", folder.path().join("catalog-sync.db").display());
        config.vault.master_keys = vec![Source::File(folder.path().join("master.key"))];
        let wiring = Wiring::of(config);
        setup::make_missing(&wiring, &folder.path().join(config::FILE), false).await?;
        output.say(format_args!(
            "A simulated App Store Connect listens at {} with a key, an app and its catalog.",
            simulator.base_url()
        ))?;
        Ok(Self {
            simulator,
            folder,
            wiring,
            id: "lumen".parse()?,
            output,
        })
    }

    fn title(&self, title: &str) -> io::Result<()> {
        self.output.say(format_args!("\n{BOLD}{title}{BOLD:#}"))
    }

    fn command(&self, command: &str) -> io::Result<()> {
        self.output
            .say(format_args!("{DIM}$ catalog-sync {command}{DIM:#}"))
    }

    fn edit(&self, change: fn(&mut App)) -> anyhow::Result<()> {
        self.simulator
            .edit(|state| state.app_mut(APP_ID).map(change))
            .context("the sample has its app")
    }

    async fn sync(&self, engine: &Engine) -> anyhow::Result<()> {
        self.command("sync lumen")?;
        sync::run(
            std::slice::from_ref(&self.id),
            sync::Extent::Named,
            engine,
            1,
            self.output,
        )
        .await
        .map(drop)
    }

    async fn hand_over_a_key(&self) -> anyhow::Result<()> {
        let state = self.simulator.state();
        let key_file = state
            .write_keys(self.folder.path())?
            .into_iter()
            .next()
            .context("the sample has a key")?;
        let issuer_id = state
            .teams
            .first()
            .context("the sample has a team")?
            .issuer_id
            .clone();
        self.title("1. A customer hands over an API key.")?;
        self.command("project add lumen --issuer-id .. --private-key AuthKey_LUMENADM01.p8")?;
        project::add(
            self.id.clone(),
            &super::key::KeyArgs::of(issuer_id, key_file),
            &self.wiring,
            self.output,
        )
        .await
        .map(drop)
    }

    async fn sync_first(&self, engine: &Engine) -> anyhow::Result<()> {
        self.title("2. The first sync brings every kind of thing.")?;
        self.sync(engine).await?;
        self.title("3. The catalog is in SQL: views with typed columns.")?;
        self.command("catalog lumen")?;
        catalog::catalog(&self.id, false, &*engine.store, self.output)
            .await
            .map(drop)
    }

    async fn edit_and_sync(&self, engine: &Engine) -> anyhow::Result<()> {
        self.title(
            "4. Somebody edits every kind of thing in App Store Connect. What would a sync change?",
        )?;
        self.edit(edit_every_kind)?;
        self.command("plan lumen")?;
        sync::plan(&self.id, engine, self.output).await?;
        self.title("5. The second sync writes it, and keeps what was before.")?;
        self.sync(engine).await?;
        self.title("6. The third finds nothing new, and writes nothing.")?;
        self.sync(engine).await
    }

    /// A mass deletion upstream, what is held back and why, and its release: three commands.
    async fn lose_half(&self, engine: &Engine) -> anyhow::Result<()> {
        self.title("7. Half of the in-app purchases vanish upstream: a mistake, or an outage. Nothing is removed.")?;
        self.edit(|app| {
            app.in_app_purchases
                .retain(|purchase| !purchase.product_id.contains(".badge."));
        })?;
        self.sync(engine).await?;
        self.title("8. What is held back, and why?")?;
        self.command("holds lumen")?;
        catalog::holds(Some(&self.id), false, &*engine.store, self.output).await?;
        self.title("9. It was meant: the removals are let through, just those that were shown.")?;
        let state = engine.store.load_state(&self.id).await?;
        let digest = state.hold.context("the removals are held")?.digest;
        self.command(&format!("approve lumen {digest}"))?;
        sync::approve(&self.id, &digest, engine, self.output).await?;
        self.title(
            "10. Nothing is forgotten: replayed from nothing, the change log gives the catalog.",
        )?;
        self.command("history lumen --verify")?;
        history::verify(&self.id, &*engine.store, self.output)
            .await
            .map(drop)
    }

    async fn tell_what_it_cost(&self, engine: &Engine) -> anyhow::Result<()> {
        self.title("11. How the project fares, and what each run cost.")?;
        self.command("status lumen")?;
        status::project(&self.id, &Config::default(), &*engine.store, self.output).await?;
        self.output.say("")?;
        self.command("runs lumen")?;
        catalog::runs(&self.id, 10, &*engine.store, self.output)
            .await
            .map(drop)
    }
}

/// More in-app purchases than the sample has, so that there is something to vanish.
fn badges() -> impl Iterator<Item = InAppPurchase> {
    ["Dawn", "Noon", "Dusk", "Night", "Storm", "Snow", "Fog"]
        .into_iter()
        .zip(6_450_000_301_u64..)
        .map(|(name, id)| {
            let product_id = format!("com.example.lumen.badge.{}", name.to_lowercase());
            InAppPurchase {
                kind: Some("NON_CONSUMABLE".to_owned()),
                state: Some("APPROVED".to_owned()),
                ..InAppPurchase::new(id.to_string(), product_id, format!("{name} Badge"))
            }
        })
}

/// One edit of an in-app purchase, a group, a subscription and the grace period each, one addition and one deletion.
fn edit_every_kind(app: &mut App) {
    if let Some(purchase) = app.in_app_purchases.first_mut() {
        "15 Credits".clone_into(&mut purchase.name);
    }
    app.in_app_purchases
        .retain(|purchase| purchase.product_id != "com.example.lumen.season.2026");
    app.in_app_purchases.push(InAppPurchase {
        kind: Some("NON_CONSUMABLE".to_owned()),
        state: Some("READY_TO_SUBMIT".to_owned()),
        ..InAppPurchase::new(
            "6450000199",
            "com.example.lumen.filters.aurora",
            "Aurora Filters",
        )
    });
    if let Some(group) = app.subscription_groups.first_mut() {
        "Lumen Pro Plans".clone_into(&mut group.reference_name);
        if let Some(subscription) = group.subscriptions.first_mut() {
            subscription.state = Some("DEVELOPER_REMOVED_FROM_SALE".to_owned());
            subscription.group_level = Some(2);
        }
    }
    if let Some(grace_period) = &mut app.grace_period {
        grace_period.duration = Some("TWENTY_EIGHT_DAYS".to_owned());
    }
}
