//! `master-key`: adding, rotating and retiring what the stored keys are sealed with.

use anyhow::Context as _;
use clap::Subcommand;
use serde::Serialize;
use serde_json::json;

use super::{
    Verdict,
    output::{BOLD, GREEN, Output, RED, ago, counted, or_dash},
    progress,
    wiring::{Wiring, plainly},
};
use crate::{
    clock::{self, Instant},
    master_keys,
    store::{KnownMasterKey, Store},
    vault::{self, MasterKey},
};

#[derive(Subcommand)]
pub(super) enum Command {
    /// Show the master keys, and how many API keys each seals
    List,
    /// Make a new master key at the end of the master key file, where it decrypts and does not encrypt yet
    Add,
    /// Seal every API key with the first master key, while workers go on; what was done stays done when it is cut off
    Rotate {
        /// Put this master key first before that
        id: Option<String>,
    },
    /// Say that nothing is sealed with a master key any more, and make a comment of it in the master key file
    Retire {
        /// The master key
        id: String,
    },
}

impl Command {
    pub(super) async fn run(self, wiring: &Wiring, output: &Output) -> anyhow::Result<Verdict> {
        match self {
            Self::List => list(wiring, output).await,
            Self::Add => add(wiring, output).await,
            Self::Rotate { id } => rotate(id.as_deref(), wiring, output).await,
            Self::Retire { id } => retire(&id, wiring, output).await,
        }
    }
}

/// What a master key is good for.
#[derive(Clone, Copy, Serialize)]
#[serde(rename_all = "snake_case")]
enum Role {
    Encrypts,
    Decrypts,
    /// Keys are sealed with it, and it is not at hand.
    Missing,
    Retired,
    /// It was at hand once.
    Gone,
}

impl Role {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Encrypts => "encrypts",
            Self::Decrypts => "decrypts",
            Self::Missing => "missing",
            Self::Retired => "retired",
            Self::Gone => "gone",
        }
    }
}

#[derive(Serialize)]
struct Shown {
    id: String,
    role: Role,
    api_keys: u64,
    /// Where it was found; none when it is not at hand.
    source: Option<String>,
    first_seen_at: Option<Instant>,
    retired_at: Option<Instant>,
}

/// The master keys at hand in their order, then those that the database knows beside them.
fn shown(at_hand: Vec<MasterKey>, mut known: Vec<KnownMasterKey>) -> Vec<Shown> {
    let mut shown = Vec::new();
    for (index, MasterKey { id, place, .. }) in at_hand.into_iter().enumerate() {
        let known = known
            .iter()
            .position(|known| known.id == id)
            .map(|index| known.remove(index));
        let retired_at = known.as_ref().and_then(|known| known.retired_at);
        shown.push(Shown {
            role: match (index, retired_at) {
                (_, Some(_)) => Role::Retired,
                (0, None) => Role::Encrypts,
                _ => Role::Decrypts,
            },
            api_keys: known.as_ref().map_or(0, |known| known.api_keys),
            source: Some(place),
            first_seen_at: known.and_then(|known| known.first_seen_at),
            retired_at,
            id,
        });
    }
    shown.extend(known.into_iter().map(|known| Shown {
        role: match (known.api_keys, known.retired_at) {
            (1.., _) => Role::Missing,
            (0, Some(_)) => Role::Retired,
            (0, None) => Role::Gone,
        },
        id: known.id,
        api_keys: known.api_keys,
        source: None,
        first_seen_at: known.first_seen_at,
        retired_at: known.retired_at,
    }));
    shown
}

async fn list(wiring: &Wiring, output: &Output) -> anyhow::Result<Verdict> {
    let store = wiring.store().await?;
    let vault = wiring.vault(&*store).await?;
    let shown = shown(vault.master_keys()?, store.list_master_keys().await?);
    output.json(&shown)?;
    let rows = shown
        .into_iter()
        .map(|key| {
            vec![
                key.id,
                key.role.as_str().to_owned(),
                key.api_keys.to_string(),
                or_dash(key.source),
                ago(key.first_seen_at),
            ]
        })
        .collect();
    output.table(
        &["master_key", "role", "api_keys", "source", "first_seen"],
        rows,
    )?;
    Ok(Verdict::Done)
}

async fn add(wiring: &Wiring, output: &Output) -> anyhow::Result<Verdict> {
    let store = wiring.store().await?;
    wiring.vault(&*store).await?;
    let file = wiring.config.vault.file().context(
        "no master key file is set up (vault.master_keys): make a key where yours are kept, an id, a colon and the base64 of 32 \
         random bytes, and let it come after the others",
    )?;
    let id = vault::add(file, clock::now())?;
    // Known to the database from now on.
    wiring.vault(&*store).await?;
    output.say(format_args!(
        "{GREEN}added{GREEN:#} {BOLD}{id}{BOLD:#} to {}: it decrypts\n\
         Next: give the file to every host that runs a worker (a running one reads it again by itself), keep a copy in a safe \
         place,\nand then: catalog-sync master-key rotate {id}",
        file.display()
    ))?;
    output.json(&json!({ "id": id, "file": file }))?;
    Ok(Verdict::Done)
}

async fn rotate(id: Option<&str>, wiring: &Wiring, output: &Output) -> anyhow::Result<Verdict> {
    let store = wiring.store().await?;
    let mut vault = wiring.vault(&*store).await?;
    if let Some(id) = id.filter(|id| *id != vault.master_key_id()) {
        master_keys::refuse_retired(&*store, id).await?;
        put_first(id, &vault.master_keys()?, wiring)?;
        vault = wiring.vault(&*store).await?;
        anyhow::ensure!(
            vault.master_key_id() == id,
            "'{id}' is the first in its file, and another source stands before that in vault.master_keys: change their order"
        );
    }
    let first = vault.master_key_id();
    let bar = progress::bar(to_do(&*store, &first).await?, "API keys", output);
    let rotated = master_keys::rotate(&vault, &*store, |done| bar.inc(done)).await;
    bar.finish_and_clear();
    let rotated = rotated.map_err(plainly)?;
    output.say(format_args!(
        "{GREEN}sealed{GREEN:#} {} with {BOLD}{first}{BOLD:#}",
        counted(rotated.resealed, "API key")
    ))?;
    for (project, error) in &rotated.failed {
        output.say(format_args!(
            "{RED}left{RED:#}   {project}: {error}; 'catalog-sync project set-key {project}' replaces it"
        ))?;
    }
    let known = store.list_master_keys().await?;
    let since = |id: &str| known.iter().find(|known| known.id == id)?.first_seen_at;
    // One that is newer was added to come after the first.
    let (newer, unused): (Vec<_>, Vec<_>) = known
        .iter()
        .filter(|known| known.id != first && known.api_keys == 0 && known.retired_at.is_none())
        .filter(|known| vault.has(&known.id))
        .map(|known| &*known.id)
        .partition(|id| since(id) > since(&first));
    for id in &newer {
        output.say(format_args!(
            "{first} is still the first; to change to {id}: catalog-sync master-key rotate {id}"
        ))?;
    }
    for id in &unused {
        output.say(format_args!(
            "Nothing is sealed with {id} any more: catalog-sync master-key retire {id}"
        ))?;
    }
    let failed: Vec<_> = rotated
        .failed
        .iter()
        .map(|(project, error)| json!({ "project": project, "error": error.to_string() }))
        .collect();
    output.json(&json!({
        "id": first, "resealed": rotated.resealed, "failed": failed, "unused": unused,
    }))?;
    Ok(if rotated.failed.is_empty() {
        Verdict::Done
    } else {
        Verdict::Failed
    })
}

/// Puts a master key first in its file.
fn put_first(id: &str, at_hand: &[MasterKey], wiring: &Wiring) -> anyhow::Result<()> {
    let ids: Vec<&str> = at_hand.iter().map(|key| &*key.id).collect();
    anyhow::ensure!(
        ids.contains(&id),
        "there is no master key '{id}' at hand (there are {}): 'catalog-sync master-key add' makes one",
        ids.join(", ")
    );
    let promoted = match wiring.config.vault.file() {
        Some(file) => vault::promote(file, id)?,
        None => false,
    };
    anyhow::ensure!(
        promoted,
        "'{id}' is not in a master key file that could be changed: put it first where it is kept, and leave the id out"
    );
    Ok(())
}

/// How many API keys another master key seals.
async fn to_do(store: &dyn Store, first: &str) -> anyhow::Result<u64> {
    let known = store.list_master_keys().await?;
    Ok(known
        .iter()
        .filter(|known| known.id != first)
        .map(|known| known.api_keys)
        .sum())
}

async fn retire(id: &str, wiring: &Wiring, output: &Output) -> anyhow::Result<Verdict> {
    let store = wiring.store().await?;
    let vault = wiring.vault(&*store).await?;
    master_keys::retire(&vault, &*store, id, clock::now())
        .await
        .map_err(plainly)?;
    let file = wiring.config.vault.file();
    let removed = match file {
        Some(file) => vault::retire(file, id, clock::now())?,
        None => false,
    };
    output.say(format_args!(
        "{GREEN}retired{GREEN:#} {BOLD}{id}{BOLD:#}: nothing is sealed with it, and nothing will be"
    ))?;
    output.say(match file {
        Some(file) if removed => {
            let file = file.display();
            format!("In {file} it is a comment now, for backups of the database that need it.")
        }
        _ => "Take it out where it is kept, or that place out of vault.master_keys; keep a copy for backups that need it."
            .to_owned(),
    })?;
    output.json(&json!({ "id": id, "removed_from": file.filter(|_| removed) }))?;
    Ok(Verdict::Done)
}
