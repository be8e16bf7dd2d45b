//! Opens what a command needs, from the configuration: the store, the vault, the client, the engine.

use std::{
    cmp::Ordering,
    io::{self, IsTerminal as _},
    num::NonZeroU32,
    path::Path,
    sync::Arc,
    time::Duration,
};

use anstream::{AutoStream, ColorChoice};
use anyhow::Context as _;
use reqwest::Url;
use secrecy::ExposeSecret as _;
use tokio_util::sync::CancellationToken;

use crate::{
    asc,
    catalog::Confirmation,
    clock,
    config::Config,
    environment, master_keys,
    metrics::Metrics,
    queue::Queue,
    retry::Bases,
    store::{self, Store},
    sync::Engine,
    telemetry::{self, Speaks, Stderr, Traces},
    vault::{Source, Vault},
};

fn stderr() -> Stderr {
    match AutoStream::choice(&io::stderr()) {
        _ if !io::stderr().is_terminal() => Stderr::NoTerminal,
        ColorChoice::Never => Stderr::Plain,
        ColorChoice::Auto | ColorChoice::AlwaysAnsi | ColorChoice::Always => Stderr::Colour,
    }
}

/// Names this process for people: `host:pid`.
fn worker_name() -> String {
    let host = rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned();
    format!("{host}:{}", std::process::id())
}

/// The configuration, and what is opened from it.
pub(super) struct Wiring {
    pub(super) config: Config,
    pub(super) metrics: Metrics,
    /// How long the end of a run may wait for others to be written with it.
    gather: Duration,
}

/// A daemon that has much to do writes the ends of runs so often, and as many at once as there are.
const GATHERED: Duration = Duration::from_millis(100);

impl Wiring {
    /// Loads the configuration and starts the log.
    pub(super) fn load(path: Option<&Path>) -> anyhow::Result<Self> {
        let config = Config::load(path, environment::all())?;
        telemetry::init(&config.log, stderr(), Speaks::Command, None)?;
        Ok(Self::of(config))
    }

    /// The same for a daemon, whose log speaks for it and can be set anew, and whose runs are traced.
    pub(super) fn load_daemon(
        path: Option<&Path>,
    ) -> anyhow::Result<(Self, telemetry::Reload, Option<Traces>)> {
        let config = Config::load(path, environment::all())?;
        let traces = Traces::start(&config.traces, &worker_name())?;
        let reload = telemetry::init(&config.log, stderr(), Speaks::Log, traces.as_ref())?;
        let wiring = Self {
            gather: GATHERED,
            ..Self::of(config)
        };
        Ok((wiring, reload, traces))
    }

    /// From a configuration, with nothing counted yet.
    pub(super) fn of(config: Config) -> Self {
        Self {
            config,
            metrics: Metrics::default(),
            gather: Duration::ZERO,
        }
    }

    /// The store as it is, whatever its schema, made if it is missing.
    pub(super) async fn open_store(&self) -> anyhow::Result<Arc<dyn Store>> {
        let url = self.config.store_url()?;
        Ok(store::open(
            url.expose_secret(),
            &self.store_options(store::Missing::Made),
        )
        .await?)
    }

    /// The store, with the schema that this version needs.
    pub(super) async fn store(&self) -> anyhow::Result<Arc<dyn Store>> {
        let url = self.config.store_url()?;
        Ok(store::open_migrated(
            url.expose_secret(),
            &self.store_options(store::Missing::Refused),
        )
        .await?)
    }

    /// The store as it is, whatever its schema; refused if it is missing.
    pub(super) async fn store_as_it_is(&self) -> anyhow::Result<Arc<dyn Store>> {
        let url = self.config.store_url()?;
        Ok(store::open(
            url.expose_secret(),
            &self.store_options(store::Missing::Refused),
        )
        .await?)
    }

    /// Whether the store is there with the schema that this version needs, without changing anything.
    pub(super) async fn check_store(&self) -> anyhow::Result<()> {
        let store::Schema { applied, known } = self.store_as_it_is().await?.schema().await?;
        match applied.cmp(&known) {
            Ordering::Less => Err(store::Error::OlderSchema { applied, known }.into()),
            Ordering::Equal => Ok(()),
            Ordering::Greater => Err(store::Error::NewerSchema { applied, known }.into()),
        }
    }

    fn store_options(&self, missing: store::Missing) -> store::Options {
        store::Options {
            missing,
            worker: worker_name(),
            metrics: self.metrics.clone(),
            busy_timeout: Duration::from_millis(self.config.store.busy_timeout_ms),
            max_connections: self.config.store.max_connections,
            gather: self.gather,
            ..store::Options::default()
        }
    }

    /// The brokers that are set up.
    pub(super) fn queues(&self) -> anyhow::Result<Vec<Arc<dyn Queue>>> {
        let queues = [self.nats()?, self.rabbitmq()?];
        Ok(queues.into_iter().flatten().collect())
    }

    #[cfg(feature = "nats")]
    fn nats(&self) -> anyhow::Result<Option<Arc<dyn Queue>>> {
        let section = &self.config.nats;
        let Some(url) = self.config.nats_url()? else {
            return Ok(None);
        };
        let settings = crate::queue::nats::Settings {
            url,
            credentials_file: named(&section.credentials_file),
            ca_file: named(&section.ca_file),
            prefix: section.prefix.clone(),
        };
        Ok(Some(Arc::new(crate::queue::nats::Nats::new(settings)?)))
    }

    /// The configuration is not valid with a URL and without the feature.
    #[cfg(not(feature = "nats"))]
    #[expect(
        clippy::unnecessary_wraps,
        clippy::unused_self,
        reason = "as with the feature"
    )]
    fn nats(&self) -> anyhow::Result<Option<Arc<dyn Queue>>> {
        Ok(None)
    }

    #[cfg(feature = "rabbitmq")]
    fn rabbitmq(&self) -> anyhow::Result<Option<Arc<dyn Queue>>> {
        let section = &self.config.rabbitmq;
        let Some(url) = self.config.rabbitmq_url()? else {
            return Ok(None);
        };
        let settings = crate::queue::rabbitmq::Settings {
            url,
            ca_file: named(&section.ca_file),
            prefix: section.prefix.clone(),
        };
        Ok(Some(Arc::new(crate::queue::rabbitmq::RabbitMq::new(
            settings,
        )?)))
    }

    /// The configuration is not valid with a URL and without the feature.
    #[cfg(not(feature = "rabbitmq"))]
    #[expect(
        clippy::unnecessary_wraps,
        clippy::unused_self,
        reason = "as with the feature"
    )]
    fn rabbitmq(&self) -> anyhow::Result<Option<Arc<dyn Queue>>> {
        Ok(None)
    }

    /// The master keys, as they are. Without them nothing starts that would need them.
    pub(super) async fn open_vault(&self) -> anyhow::Result<Vault> {
        let sources = self.config.vault.master_keys.clone();
        for source in &sources {
            if let Source::Variable(name) = source {
                tracing::warn!(
                    event = "master_key.in_environment",
                    variable = name,
                    "other processes of this user can read the environment of this one: a file, a credential or a command \
                     keeps the master keys better"
                );
            }
        }
        // A program may have to be run for them.
        Ok(tokio::task::spawn_blocking(move || Vault::open(&sources)).await??)
    }

    /// The master keys, once they are found to be those that the database knows.
    pub(super) async fn vault(&self, store: &dyn Store) -> anyhow::Result<Vault> {
        let vault = self.open_vault().await?;
        master_keys::check(&vault, store, clock::now())
            .await
            .map_err(plainly)?;
        Ok(vault)
    }

    /// The client of App Store Connect.
    pub(super) fn client(&self) -> anyhow::Result<asc::Client> {
        let section = &self.config.app_store;
        let ca_pem = match section.ca_file.as_os_str() {
            none if none.is_empty() => None,
            file => Some(std::fs::read(file).with_context(|| {
                format!(
                    "app_store.ca_file: {} cannot be read",
                    section.ca_file.display()
                )
            })?),
        };
        let proxy = match section.proxy.as_str() {
            "" => None,
            proxy => Some(Url::parse(proxy).context("app_store.proxy is not a URL")?),
        };
        let options = asc::Options {
            base_url: Url::parse(&section.base_url).context("app_store.base_url is not a URL")?,
            ca_pem,
            proxy,
            connect_timeout: Duration::from_millis(section.connect_timeout_ms),
            request_timeout: Duration::from_millis(section.request_timeout_ms),
            in_flight_per_key: section.in_flight_per_key,
            requests_per_second_per_key: NonZeroU32::new(section.requests_per_second_per_key)
                .context("app_store.requests_per_second_per_key is 0")?,
            burst_per_key: NonZeroU32::new(section.burst_per_key)
                .context("app_store.burst_per_key is 0")?,
            breaker: asc::breaker::Settings::default(),
            retry: Bases::default(),
            metrics: self.metrics.clone(),
        };
        asc::Client::new(options).context(
            "the HTTPS client cannot be set up; where the system has no certificate authorities, install the package ca-certificates, and app_store.ca_file must be PEM",
        )
    }

    /// All that a run needs.
    pub(super) async fn engine(&self) -> anyhow::Result<Engine> {
        let store = self.store().await?;
        Ok(Engine {
            vault: Arc::new(self.vault(&*store).await?),
            store,
            client: self.client()?,
            metrics: self.metrics.clone(),
            limits: self.config.guard,
            confirmation: Confirmation::default(),
            lease: Duration::from_millis(self.config.sync.lease_ms),
            heartbeat: Duration::from_millis(self.config.sync.heartbeat_ms),
            stop: CancellationToken::new(),
            cut: CancellationToken::new(),
        })
    }
}

/// The error itself, by which its code and what to do about it are found.
pub(super) fn plainly(error: master_keys::Error) -> anyhow::Error {
    match error {
        master_keys::Error::Store(error) => error.into(),
        master_keys::Error::Vault(error) => error.into(),
        other => other.into(),
    }
}

/// The file, unless it is empty.
#[cfg(any(feature = "nats", feature = "rabbitmq"))]
fn named(file: &Path) -> Option<std::path::PathBuf> {
    (!file.as_os_str().is_empty()).then(|| file.to_owned())
}
