//! `run`: the daemon.

use std::{future::pending, path::Path, sync::Arc, time::Duration};

use secrecy::ExposeSecret as _;
use tokio::{
    sync::{Notify, watch},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;
use tracing::Level;

use super::{
    Verdict,
    output::Output,
    wiring::{Wiring, plainly},
};
use crate::{
    clock,
    config::Config,
    daemon::{
        Crash, DATABASE_SILENCE, Daemon, Outage, Settings, fleet,
        health::{Readiness, Server},
        pulse::Pulse,
        signals::{self, Shutdown},
        systemd::Manager,
    },
    environment, master_keys,
    metrics::Metrics,
    retry::Patience,
    store,
    sync::Engine,
    telemetry, vault,
};

/// Works until a signal stops it.
pub(super) async fn run(path: Option<&Path>, output: &Output) -> anyhow::Result<Verdict> {
    let (wiring, log, traces) = Wiring::load_daemon(path)?;
    tracing::info!(
        event = "daemon.starting",
        version = env!("CARGO_PKG_VERSION"),
        store = wiring.config.shown_store(),
        config = wiring.config.file().map(|file| file.display().to_string()),
        "starting"
    );
    let result = Box::pin(work(path, &wiring, &log)).await;
    if let (Some(traces), Ok(Verdict::Done) | Err(_)) = (traces, &result) {
        traces.end().await;
    }
    match result {
        Err(error) if tracing::enabled!(Level::ERROR) => {
            tell_end(&error);
            // With `--json` there is an answer beside the log.
            output.fail_in_json(&error);
            Ok(Verdict::Failed)
        }
        result => result,
    }
}

/// Why the daemon ends that was not told to.
fn tell_end(error: &anyhow::Error) {
    let code = error.downcast_ref::<store::Error>().map(store::Error::code);
    if error.is::<Crash>() {
        tracing::error!(
            event = "daemon.crashed",
            error.sentence = format!("{error:#}"),
            "the daemon ends: this is a defect of catalog-sync"
        );
    } else {
        tracing::error!(
            event = "daemon.not_started",
            error.code = code,
            error.sentence = format!("{error:#}"),
            "the daemon cannot work as it is set up, and ends"
        );
    }
}

async fn work(
    path: Option<&Path>,
    wiring: &Wiring,
    log: &telemetry::Reload,
) -> anyhow::Result<Verdict> {
    let manager = Manager::new(environment::all(), std::process::id())?;
    let settings = settings(&wiring.config)?;
    let queues = wiring.queues()?;
    let health = match wiring.config.health.listen.as_str() {
        "" => None,
        listen => Some(Server::bind(listen).await?),
    };
    if let Some(server) = &health {
        tracing::info!(event = "health.listening", address = %server.address(), "answering probes");
    }
    make_first(wiring).await?;

    let shutdown = Shutdown::default();
    let Shutdown { soft, cut } = shutdown.clone();
    let grace = Duration::from_millis(wiring.config.daemon.grace_ms);
    let hangup = Arc::new(Notify::new());
    let heard = Arc::clone(&hangup);
    let second = signals::start(shutdown, grace, move || heard.notify_one()).await?;
    let (pulse, readiness) = (Pulse::default(), Readiness::new(DATABASE_SILENCE));
    let count_every = match &health {
        Some(_) => fleet::FOR_METRICS,
        None => fleet::FOR_LOG,
    };
    let teller = Teller::start(health, &manager, &pulse, &readiness, &wiring.metrics);
    let (set, settings) = watch::channel(settings);

    let daemon = async {
        let database = Outage::of("database").shown_in(&wiring.metrics);
        let mut engine = tokio::select! {
            engine = patiently(wiring, &database) => engine?,
            () = soft.cancelled() => return Ok(()),
        };
        engine.stop = soft.clone();
        engine.cut = cut;
        manager.status("at work");
        let daemon = Daemon {
            engine,
            queues,
            settings,
            count_every,
            database,
            pulse,
            readiness,
        };
        anyhow::Ok(daemon.run().await?)
    };
    let stopping = async {
        soft.cancelled().await;
        manager.stopping("giving back what is in hand");
        pending().await
    };
    let reloads = async {
        loop {
            hangup.notified().await;
            manager.reloading();
            reload(path, &wiring.config, &set, log);
            manager.ready("at work");
        }
    };
    let verdict = tokio::select! {
        biased; // The service manager is told before the daemon has ended.
        never = stopping => never,
        ended = daemon => ended.map(|()| Verdict::Done),
        stop = second => return Ok(Verdict::Aborted(stop?)),
        never = reloads => never,
    };
    teller.end().await;
    verdict
}

/// What tells how the daemon fares, from before it has a database until it has ended.
struct Teller {
    tasks: JoinSet<()>,
    ended: CancellationToken,
}

impl Teller {
    fn start(
        health: Option<Server>,
        manager: &Manager,
        pulse: &Pulse,
        readiness: &Readiness,
        metrics: &Metrics,
    ) -> Self {
        let ended = CancellationToken::new();
        let mut tasks = JoinSet::new();
        if let Some(server) = health {
            let (pulse, readiness) = (pulse.clone(), readiness.clone());
            tasks.spawn(server.serve(pulse, readiness, metrics.clone(), ended.clone()));
        }
        let (pulse, fed, until) = (pulse.clone(), manager.clone(), ended.clone());
        tasks.spawn(async move {
            tokio::select! {
                () = fed.feed_watchdog(&pulse) => {}
                () = until.cancelled() => {}
            }
        });
        // A service manager that waited for the database would end the daemon that waits for it.
        manager.ready("waiting for the database");
        Self { tasks, ended }
    }

    async fn end(mut self) {
        self.ended.cancel();
        while self.tasks.join_next().await.is_some() {}
    }
}

/// With a SQLite file that is not there yet, this is the first start: a master key is made, and the file. The key comes first: a
/// start that dies in between is repeated, while a file without a key is refused.
async fn make_first(wiring: &Wiring) -> anyhow::Result<()> {
    let url = wiring.config.store_url()?;
    if !store::is_absent(url.expose_secret())? {
        return Ok(());
    }
    if let Some(key_file) = wiring.config.vault.file() {
        match vault::create(key_file, clock::now()) {
            Ok(_) => tracing::warn!(
                event = "master_key.made",
                file = %key_file.display(),
                "a new master key: keep a copy in a safe place, apart from the backups of the database"
            ),
            Err(vault::Error::Exists { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    wiring.open_store().await?.migrate().await?;
    tracing::info!(
        event = "store.made",
        store = wiring.config.shown_store(),
        "a new database"
    );
    Ok(())
}

/// All that a run needs, as soon as the database is there.
async fn patiently(wiring: &Wiring, database: &Outage) -> anyhow::Result<Engine> {
    let mut patience = Patience::default();
    loop {
        let ready = async {
            let engine = wiring.engine().await?;
            tell_missing_master_keys(&engine).await?;
            anyhow::Ok(engine)
        };
        match ready.await {
            Ok(engine) => return Ok(engine),
            Err(error) if is_worth_waiting(&error) => {
                database.failed(&error);
                tokio::time::sleep(patience.wait()).await;
            }
            Err(error) => return Err(error),
        }
    }
}

/// Whether the database may be there later: it is away, or whoever upgrades has not migrated it yet.
fn is_worth_waiting(error: &anyhow::Error) -> bool {
    matches!(
        error.downcast_ref(),
        Some(store::Error::Unavailable(_) | store::Error::OlderSchema { .. })
    )
}

/// A master key that some of the keys need, and is not at hand, is told; with none that any needs there is nothing to do.
async fn tell_missing_master_keys(engine: &Engine) -> anyhow::Result<()> {
    let missing = master_keys::missing(&engine.vault, &*engine.store).await;
    for missing in missing.map_err(plainly)? {
        tracing::error!(
            event = "master_key.missing",
            master_key.id = missing.id,
            api_keys = missing.api_keys,
            "a master key is not at hand, and the API keys that it sealed cannot be used: bring it back; it is looked for again by \
             itself"
        );
    }
    Ok(())
}

fn settings(config: &Config) -> anyhow::Result<Settings> {
    Ok(Settings {
        schedule: config.schedule.parse()?,
        blocked_every: Duration::from_secs(60 * config.schedule.blocked_minutes),
        concurrency: config.sync.concurrency,
        limits: config.guard,
        retention: config.retention,
        poll: Duration::from_millis(config.daemon.poll_ms),
    })
}

/// Reads the configuration again. What is wrong with it leaves everything as it was.
fn reload(
    path: Option<&Path>,
    at_start: &Config,
    set: &watch::Sender<Settings>,
    log: &telemetry::Reload,
) {
    let reread = || -> anyhow::Result<Config> {
        let config = Config::load(path, environment::all())?;
        if let (Some(file), None) = (at_start.file(), config.file()) {
            anyhow::bail!("{} is not there any more", file.display());
        }
        let settings = settings(&config)?;
        log.filter(&config.log)?;
        set.send_replace(settings);
        Ok(config)
    };
    match reread() {
        Ok(config) => {
            let needs_restart = config.needs_restart(at_start);
            tracing::info!(
                event = "config.reloaded",
                needs_restart = needs_restart.join(", "),
                "what can be set while it runs is set"
            );
        }
        Err(error) => tracing::error!(
            event = "config.rejected",
            error.sentence = format!("{error:#}"),
            "everything stays as it was"
        ),
    }
}
