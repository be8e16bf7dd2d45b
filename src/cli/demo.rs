//! `demo`: the main job from a key to SQL, against a simulated App Store Connect, in a folder that is gone afterwards.
//!
//! Every step is the command itself, with the same code behind it as when it is typed.

use std::fs;

use anyhow::Context as _;

use super::{
    Verdict, catalog,
    output::{BOLD, DIM, Output},
    project, setup, sync,
    wiring::Wiring,
};
use crate::{
    project::ProjectId,
    simulator::{App, InAppPurchase, Options, Simulator, State},
};

/// The simulated app.
const APP_ID: &str = "1600000001";

/// Shows everything once, unless it is interrupted; leaves nothing behind either way.
pub(super) async fn demo(wiring: &Wiring, output: &Output) -> anyhow::Result<Verdict> {
    tokio::select! {
        shown = show(wiring, output) => shown.map(|()| Verdict::Done),
        interrupted = tokio::signal::ctrl_c() => {
            interrupted?;
            anyhow::bail!("interrupted; nothing was left behind")
        }
    }
}

async fn show(wiring: &Wiring, output: &Output) -> anyhow::Result<()> {
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
    let edit = |change: fn(&mut App)| {
        simulator
            .edit(|state| state.app_mut(APP_ID).map(change))
            .context("the sample has its app")
    };
    let key_file = simulator
        .state()
        .write_keys(folder.path())?
        .into_iter()
        .next()
        .context("the sample has a key")?;
    let issuer_id = simulator
        .state()
        .teams
        .first()
        .context("the sample has a team")?
        .issuer_id
        .clone();

    let mut config = wiring.config.clone();
    let ca_file = folder.path().join("ca.pem");
    fs::write(&ca_file, simulator.ca_pem().unwrap_or_default())?;
    config.app_store.base_url = simulator.base_url().to_owned();
    config.app_store.ca_file = ca_file;
    config.app_store.proxy = String::new();
    config.store.url = format!("sqlite:{}", folder.path().join("catalog-sync.db").display());
    config.store.url_file = std::path::PathBuf::new();
    config.vault.master_key_file = folder.path().join("master.key");
    let wiring = &Wiring { config };
    let id: ProjectId = "lumen".parse()?;

    let step = |title: &str, command: &str| {
        output.say(format_args!(
            "\n{BOLD}{title}{BOLD:#}\n{DIM}$ catalog-sync {command}{DIM:#}"
        ))
    };
    output.say(format_args!(
        "A simulated App Store Connect listens at {} with a key, an app and its catalog.",
        simulator.base_url()
    ))?;
    setup::make_missing(wiring, &folder.path().join("worker.toml")).await?;

    step(
        "1. A customer hands over an API key.",
        "project add lumen --issuer-id .. --private-key AuthKey_LUMENADM01.p8",
    )?;
    project::add(
        id.clone(),
        &project::KeyArgs::of(issuer_id, key_file),
        wiring,
        output,
    )
    .await?;

    step(
        "2. The first sync brings every kind of thing.",
        "sync lumen",
    )?;
    let engine = wiring.engine().await?;
    let ids = std::slice::from_ref(&id);
    sync::run(ids, &engine, 1, output).await?;

    step(
        "3. The catalog is in SQL: views with typed columns.",
        "catalog lumen",
    )?;
    catalog::catalog(&id, false, &*engine.store, output).await?;

    output.say(format_args!(
        "\n{BOLD}4. Somebody edits every kind of thing in App Store Connect.{BOLD:#}"
    ))?;
    edit(edit_every_kind)?;
    step("   What would a sync change?", "plan lumen")?;
    sync::plan(&id, &engine, output).await?;
    step(
        "5. The second sync writes it, and keeps what was before.",
        "sync lumen",
    )?;
    sync::run(ids, &engine, 1, output).await?;

    step(
        "6. The third finds nothing new, and writes nothing.",
        "sync lumen",
    )?;
    sync::run(ids, &engine, 1, output).await?;

    output.say(format_args!(
        "\n{BOLD}7. Half of the in-app purchases vanish upstream: a mistake, or an outage.{BOLD:#}"
    ))?;
    edit(|app| {
        app.in_app_purchases
            .retain(|purchase| !purchase.product_id.contains(".badge."));
    })?;
    step(
        "   Such removals are held until somebody approves them, or the things return.",
        "sync lumen",
    )?;
    sync::run(ids, &engine, 1, output).await?;

    step("8. How it fares, and what each run cost.", "status lumen")?;
    catalog::status(Some(&id), &*engine.store, output).await?;
    step("", "runs lumen")?;
    catalog::runs(&id, 10, &*engine.store, output).await?;

    drop(engine);
    simulator.stop().await;
    folder.close()?;
    output.say(
        "\nThat was all; nothing was left behind. The README says how to go on with a real key.",
    )?;
    Ok(())
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
