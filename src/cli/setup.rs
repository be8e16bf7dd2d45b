//! `init`, `migrate`, `check-config`, `explain`.

use std::{
    fs::OpenOptions,
    io::{ErrorKind, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

use anyhow::Context as _;
use serde_json::{Map, Value, json};

use super::{
    Verdict,
    output::{BOLD, GREEN, Output, RED, counted},
    progress,
    wiring::{Wiring, plainly},
};
use crate::{
    clock, config,
    diagnosis::{Code, Retry},
    master_keys,
    store::{self, Store},
    vault::{self, Vault},
};

/// What `init` found missing and made.
pub(super) struct Made {
    config: bool,
    master_key: bool,
    schema: store::Schema,
}

/// Makes what is missing of the configuration file, the master key and the database, and leaves alone what is there.
///
/// A master key is not made anew while stored keys need a lost one, unless that is wanted.
pub(super) async fn make_missing(
    wiring: &Wiring,
    file: &Path,
    new_master_key: bool,
) -> anyhow::Result<Made> {
    let store = wiring.open_store().await?;
    let schema = store.migrate().await?;
    let key_file = wiring.config.vault.file();
    let missing = key_file.filter(|file| !file.exists());
    if let Some(key_file) = missing {
        let projects = store.list_projects().await?.len();
        anyhow::ensure!(
            projects == 0 || new_master_key,
            "the master key file {} is not there, and the keys of {} are sealed with it: bring it back. If it is lost for good, \
             'catalog-sync init --new-master-key' makes a new one, and each project's key must be given again with \
             'catalog-sync project set-key'",
            key_file.display(),
            counted(projects as u64, "project")
        );
        match vault::create(key_file, clock::now()) {
            // Another 'init' was faster.
            Ok(_) | Err(vault::Error::Exists { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    } else {
        wiring.vault(&*store).await?;
    }
    let config = match OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(file)
    {
        Ok(mut new) => new
            .write_all(config::REFERENCE.as_bytes())
            .with_context(|| format!("{} cannot be written", file.display()))
            .map(|()| true)?,
        Err(error) if error.kind() == ErrorKind::AlreadyExists => false,
        Err(error) => {
            return Err(error).with_context(|| format!("{} cannot be made", file.display()));
        }
    };
    Ok(Made {
        config,
        master_key: missing.is_some(),
        schema,
    })
}

/// Makes what is missing, and says what was.
pub(super) async fn init(
    new_master_key: bool,
    wiring: &Wiring,
    output: &Output,
) -> anyhow::Result<Verdict> {
    let file = wiring
        .config
        .file()
        .map_or_else(|| Path::new(config::FILE).to_owned(), Path::to_owned);
    let Made {
        config,
        master_key,
        schema,
    } = make_missing(wiring, &file, new_master_key).await?;
    let key_file = wiring.config.vault.file();
    let url = wiring.config.shown_store();
    output.say(format_args!("{} {}", made(config), file.display()))?;
    if let Some(file) = key_file {
        output.say(format_args!(
            "{} {} (the master key: keep a copy in a safe place)",
            made(master_key),
            file.display()
        ))?;
    }
    output.say(format_args!("{} {url}", made(schema.applied == 0)))?;
    if schema.applied == 0 {
        output
            .say("Next: catalog-sync project add ID --issuer-id .. --private-key AuthKey_..p8")?;
    }
    output.json(&json!({
        "config": { "file": file, "made": config },
        "master_key": { "file": key_file, "made": master_key },
        "store": { "url": url, "schema_before": schema.applied, "schema": schema.known },
    }))?;
    Ok(Verdict::Done)
}

fn made(made: bool) -> &'static str {
    if made { "made" } else { "kept" }
}

/// Applies the migrations that the database lacks.
pub(super) async fn migrate(wiring: &Wiring, output: &Output) -> anyhow::Result<Verdict> {
    let store = wiring.open_store().await?;
    let bar = progress::spinner(output);
    let before = store
        .migrate_telling(&|step| bar.set_message(progress::step(step)))
        .await;
    bar.finish_and_clear();
    let before = before?;
    output.say(if before.applied == before.known {
        format!("schema {} is up to date", before.known)
    } else {
        format!("schema {} -> {}", before.applied, before.known)
    })?;
    output.json(&json!({ "schema_before": before.applied, "schema": before.known }))?;
    Ok(Verdict::Done)
}

/// Says which migrations the database lacks, and changes nothing.
pub(super) async fn check_schema(wiring: &Wiring, output: &Output) -> anyhow::Result<Verdict> {
    let store::Schema { applied, known } = wiring.store_as_it_is().await?.schema().await?;
    if applied > known {
        return Err(store::Error::NewerSchema { applied, known }.into());
    }
    let lacking: Vec<store::Migration> = store::migrations()
        .filter(|migration| migration.version > applied)
        .collect();
    if lacking.is_empty() {
        output.say(format_args!("schema {applied} is up to date"))?;
    } else {
        let count = counted(lacking.len() as u64, "migration");
        output.say(format_args!("schema {applied} lacks {count}:"))?;
    }
    for store::Migration { version, name } in &lacking {
        output.say(format_args!("  {version:04} {name}"))?;
    }
    output.json(&json!({ "schema": applied, "lacking": lacking }))?;
    Ok(if lacking.is_empty() {
        Verdict::Done
    } else {
        Verdict::Undecided
    })
}

/// Shows the configuration as it is understood, and whether what it names is there. That it is sound in itself was checked when
/// it was loaded.
pub(super) async fn check_config(wiring: &Wiring, output: &Output) -> anyhow::Result<Verdict> {
    let text = wiring.config.redacted();
    let source = wiring
        .config
        .file()
        .map_or_else(|| "defaults".to_owned(), |file| file.display().to_string());
    let database = wiring.check_store().await;
    let master_keys = match database {
        Ok(()) => check_master_keys(wiring).await,
        Err(_) => wiring.open_vault().await.map(drop),
    };
    let checks = [
        ("master keys", master_keys),
        ("HTTPS client", wiring.client().map(drop)),
        ("database", database),
    ];
    output.say(format_args!(
        "{BOLD}# {source}, with the environment on top{BOLD:#}\n{text}"
    ))?;
    for (what, check) in &checks {
        output.say(match check {
            Ok(()) => format!("{GREEN}sound{GREEN:#}   {what}"),
            Err(error) => format!("{RED}failed{RED:#}  {what}: {error:#}"),
        })?;
    }
    let answer: Map<String, Value> = checks
        .iter()
        .map(|(what, check)| {
            (
                (*what).to_owned(),
                json!(check.as_ref().err().map(|error| format!("{error:#}"))),
            )
        })
        .collect();
    output.json(&json!({ "source": source, "config": toml::from_str::<toml::Table>(&text)?, "failures": answer }))?;
    Ok(if checks.iter().all(|(_, check)| check.is_ok()) {
        Verdict::Done
    } else {
        Verdict::Failed
    })
}

/// Whether all master keys are at hand that the stored keys need, and are the right ones.
async fn check_master_keys(wiring: &Wiring) -> anyhow::Result<()> {
    let store = wiring.store().await?;
    let vault = wiring.vault(&*store).await?;
    no_master_key_missing(&vault, &*store).await
}

/// Fails when a master key is not at hand that stored keys need.
pub(super) async fn no_master_key_missing(vault: &Vault, store: &dyn Store) -> anyhow::Result<()> {
    let missing = master_keys::missing(vault, store).await.map_err(plainly)?;
    if let Some(missing) = missing.first() {
        let api_keys = counted(missing.api_keys, "API key");
        anyhow::bail!(
            "the master key '{}', which seals {api_keys}, is not at hand: bring it back",
            missing.id
        );
    }
    Ok(())
}

/// Explains one error code, or lists them all.
pub(super) fn explain(code: Option<Code>, output: &Output) -> anyhow::Result<Verdict> {
    let codes = code.as_ref().map_or(Code::ALL, std::slice::from_ref);
    for code in codes {
        let retry = match code.retry() {
            Retry::No => "Trying again does not help until that is done.",
            Retry::Slow => "It is tried again, at longer intervals.",
            Retry::ByItself => "It is tried again by itself.",
        };
        output.say(format_args!(
            "{BOLD}{code}{BOLD:#}\n  {}\n  {}\n  {retry}",
            code.title(),
            code.advice()
        ))?;
    }
    let answer: Vec<_> = codes
        .iter()
        .map(|code| json!({ "code": code, "title": code.title(), "advice": code.advice(), "retry": code.retry() }))
        .collect();
    output.json(&answer)?;
    Ok(Verdict::Done)
}
