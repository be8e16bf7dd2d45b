//! The sections of `worker.toml`, each key at its default. None shows a password.

use std::{
    fmt,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Deserialize, Serialize};

use super::redact;
use crate::{schedule, vault::Source};

/// What names on a broker begin with.
const PREFIX: &str = "catalog_sync";

/// `[store]`
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Store {
    /// `sqlite:<file>` or `postgres://..`; see [`Config::store_url`](super::Config::store_url).
    pub url: String,
    /// A file that holds the URL; empty for none.
    pub url_file: PathBuf,
    /// How long a statement waits for another writer of an `SQLite` file.
    pub busy_timeout_ms: u64,
    /// How many connections a worker opens at most.
    pub max_connections: u32,
}

/// `[vault]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Vault {
    /// Where the master keys are: the first of all encrypts.
    pub master_keys: Vec<Source>,
}

/// `[app_store]`
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AppStore {
    /// Scheme, host and port of App Store Connect.
    pub base_url: String,
    /// A PEM file of certificate authorities to trust instead of the system's; empty for none.
    pub ca_file: PathBuf,
    /// The URL of an HTTP proxy; empty for none.
    pub proxy: String,
    /// How long connecting may take.
    pub connect_timeout_ms: u64,
    /// How long a request may take, its answer included.
    pub request_timeout_ms: u64,
    /// How many requests of one API key may be under way at once.
    pub in_flight_per_key: usize,
    /// How many requests of one API key may be sent a second, beyond the burst.
    pub requests_per_second_per_key: u32,
    /// How many requests of one API key may be sent as fast as they come.
    pub burst_per_key: u32,
}

/// `[sync]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Sync {
    /// How many projects are synced at once.
    pub concurrency: usize,
    /// How long a project stays taken when its worker no longer answers.
    pub lease_ms: u64,
    /// How often a worker says that it still works on a project.
    pub heartbeat_ms: u64,
}

/// `[schedule]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Schedule {
    /// When projects are synced; see [`schedule::Cron`].
    pub cron: String,
    /// The zone in which `cron` and the projects' own are read.
    pub time_zone: String,
    /// How long after each such time the last project is due.
    pub spread_minutes: u64,
    /// How often a project is looked at whose key Apple rejects.
    pub blocked_minutes: u64,
}

/// `[daemon]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Daemon {
    /// How often the database is asked for work.
    pub poll_ms: u64,
    /// How long runs under way may take to end when the daemon is told to stop.
    pub grace_ms: u64,
}

/// `[health]`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Health {
    /// `host:port` to answer probes on; empty for none.
    pub listen: String,
}

/// `[nats]`
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Nats {
    /// `nats://..` or `tls://..`, several with commas between them; empty for none. See [`Config::nats_url`](super::Config::nats_url).
    pub url: String,
    /// A file that holds the URL; empty for none.
    pub url_file: PathBuf,
    /// A file with a JWT and an nkey; empty for none.
    pub credentials_file: PathBuf,
    /// A PEM file of certificate authorities to trust instead of the system's; empty for none.
    pub ca_file: PathBuf,
    /// What the names of streams and subjects begin with.
    pub prefix: String,
}

/// `[rabbitmq]`
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RabbitMq {
    /// `amqp://..` or `amqps://..`; empty for none. See [`Config::rabbitmq_url`](super::Config::rabbitmq_url).
    pub url: String,
    /// A file that holds the URL; empty for none.
    pub url_file: PathBuf,
    /// A PEM file of certificate authorities to trust beside the system's; empty for none.
    pub ca_file: PathBuf,
    /// What the names of queues and exchanges begin with.
    pub prefix: String,
}

/// `[log]`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// Directives of `tracing`, such as `info,catalog_sync=debug`; empty for nothing where a command speaks on a terminal, and
    /// `info` elsewhere.
    pub filter: String,
    /// The form of a line.
    pub format: Format,
}

/// `[traces]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Traces {
    /// The URL of a collector that takes OTLP over HTTP; empty for none.
    pub endpoint: String,
    /// How many of a hundred runs are traced.
    pub percent: u64,
}

/// The form of a log line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// Text on a terminal, JSON elsewhere.
    #[default]
    Auto,
    /// For people.
    Text,
    /// For machines: an object a line.
    Json,
}

impl Default for Store {
    fn default() -> Self {
        Self {
            url: "sqlite:catalog-sync.db".to_owned(),
            url_file: PathBuf::new(),
            busy_timeout_ms: 15_000,
            max_connections: crate::store::Options::default().max_connections,
        }
    }
}

impl Default for Vault {
    fn default() -> Self {
        Self {
            master_keys: vec![Source::File("master.key".into())],
        }
    }
}

impl Default for AppStore {
    fn default() -> Self {
        Self {
            base_url: "https://api.appstoreconnect.apple.com".to_owned(),
            ca_file: PathBuf::new(),
            proxy: String::new(),
            connect_timeout_ms: 10_000,
            request_timeout_ms: 30_000,
            in_flight_per_key: 4,
            requests_per_second_per_key: 4,
            burst_per_key: 250,
        }
    }
}

impl Default for Sync {
    fn default() -> Self {
        Self {
            concurrency: 32,
            lease_ms: 30_000,
            heartbeat_ms: 10_000,
        }
    }
}

impl Default for Schedule {
    fn default() -> Self {
        Self {
            cron: "0 * * * *".to_owned(),
            time_zone: "UTC".to_owned(),
            spread_minutes: 50,
            blocked_minutes: 360,
        }
    }
}

impl Default for Daemon {
    fn default() -> Self {
        Self {
            poll_ms: 1_000,
            grace_ms: 10_000,
        }
    }
}

impl Default for Nats {
    fn default() -> Self {
        Self {
            url: String::new(),
            url_file: PathBuf::new(),
            credentials_file: PathBuf::new(),
            ca_file: PathBuf::new(),
            prefix: PREFIX.to_owned(),
        }
    }
}

impl Default for RabbitMq {
    fn default() -> Self {
        Self {
            url: String::new(),
            url_file: PathBuf::new(),
            ca_file: PathBuf::new(),
            prefix: PREFIX.to_owned(),
        }
    }
}

impl Default for Traces {
    fn default() -> Self {
        Self {
            endpoint: String::new(),
            percent: 100,
        }
    }
}

impl Vault {
    /// The file that can be made and changed, if any source is one.
    #[must_use]
    pub fn file(&self) -> Option<&Path> {
        self.master_keys.iter().find_map(|source| match source {
            Source::File(path) => Some(&**path),
            Source::Credential(_) | Source::Variable(_) | Source::Command(_) => None,
        })
    }
}

impl Schedule {
    /// The schedule that these keys describe.
    ///
    /// # Errors
    ///
    /// When the cron or the time zone is wrong, which a configuration that was loaded is not.
    pub fn parse(&self) -> Result<schedule::Schedule, schedule::Error> {
        let spread = Duration::from_secs(self.spread_minutes.saturating_mul(60));
        schedule::Schedule::new(&self.cron, &self.time_zone, spread)
    }
}

/// Without a password.
impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store")
            .field("url", &redact::url(&self.url))
            .field("url_file", &self.url_file)
            .field("busy_timeout_ms", &self.busy_timeout_ms)
            .field("max_connections", &self.max_connections)
            .finish()
    }
}

/// Without a password.
impl fmt::Debug for AppStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AppStore")
            .field("base_url", &redact::url(&self.base_url))
            .field("ca_file", &self.ca_file)
            .field("proxy", &redact::url(&self.proxy))
            .field("connect_timeout_ms", &self.connect_timeout_ms)
            .field("request_timeout_ms", &self.request_timeout_ms)
            .field("in_flight_per_key", &self.in_flight_per_key)
            .field(
                "requests_per_second_per_key",
                &self.requests_per_second_per_key,
            )
            .field("burst_per_key", &self.burst_per_key)
            .finish()
    }
}

/// Without a password.
impl fmt::Debug for Nats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Nats")
            .field("url", &redact::nats(&self.url))
            .field("url_file", &self.url_file)
            .field("credentials_file", &self.credentials_file)
            .field("ca_file", &self.ca_file)
            .field("prefix", &self.prefix)
            .finish()
    }
}

/// Without a password.
impl fmt::Debug for RabbitMq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RabbitMq")
            .field("url", &redact::url(&self.url))
            .field("url_file", &self.url_file)
            .field("ca_file", &self.ca_file)
            .field("prefix", &self.prefix)
            .finish()
    }
}
