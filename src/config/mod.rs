//! How a worker is set up: `worker.toml`, then the environment over it.
//!
//! Every key of the file can be set as a variable `CATALOG_SYNC_<SECTION>__<KEY>`. What must hold throughout: the defaults
//! serve as they are; an unknown key or variable is an error that names the nearest; a wrong value is told with the place
//! it comes from; no secret needs to be in the file, and none is ever shown. Relative paths are relative to the folder
//! in which the worker is started.

mod exposed;
mod redact;
mod settings;
mod validate;

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use secrecy::SecretString;
use serde::{Deserialize, Serialize};

use crate::{catalog::Limits, schedule, store::Retention, vault::Source};

/// The file that is read from the current folder when no other is named.
pub const FILE: &str = "worker.toml";

/// The annotated reference: every key at its default.
pub const REFERENCE: &str = include_str!("../../worker.toml");

/// What names on a broker begin with.
const PREFIX: &str = "catalog_sync";

/// Names the file where the command line does not.
const FILE_VARIABLE: &str = "CATALOG_SYNC_CONFIG";

/// Everything that can be set.
#[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where the catalogs are.
    pub store: Store,
    /// Where the master keys are.
    pub vault: Vault,
    /// How App Store Connect is reached.
    pub app_store: AppStore,
    /// How projects are synced.
    pub sync: Sync,
    /// When projects are synced.
    pub schedule: Schedule,
    /// How the daemon works.
    pub daemon: Daemon,
    /// When removals are held.
    pub guard: Limits,
    /// How long what is old is kept.
    pub retention: Retention,
    /// Where probes are answered.
    pub health: Health,
    /// Requests and changes over NATS.
    pub nats: Nats,
    /// Requests and changes over `RabbitMQ`.
    pub rabbitmq: RabbitMq,
    /// What is logged.
    pub log: Log,
    /// Where traces go.
    pub traces: Traces,
    #[serde(skip)]
    file: Option<PathBuf>,
}

/// `[store]`
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Store {
    /// `sqlite:<file>` or `postgres://..`; see [`Config::store_url`].
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
    /// `nats://..` or `tls://..`, several with commas between them; empty for none. See [`Config::nats_url`].
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
    /// `amqp://..` or `amqps://..`; empty for none. See [`Config::rabbitmq_url`].
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

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be read.
    #[error("{what} {} cannot be read", path.display())]
    Unreadable {
        /// What the file is.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Keys or values are wrong: one line for each, beginning with where it is.
    #[error("{}", .0.join("\n"))]
    Invalid(Vec<String>),
}

impl Config {
    /// Reads the file at `path`, else the one that `CATALOG_SYNC_CONFIG` names, else `worker.toml` in the current folder if
    /// there is one; then the environment.
    ///
    /// # Errors
    ///
    /// When the file cannot be read, or anything in it or in the environment is wrong: all of it at once.
    pub fn load(
        path: Option<&Path>,
        env: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, Error> {
        let env: Vec<(String, String)> = env.into_iter().collect();
        let named = path.map(Path::to_owned).or_else(|| {
            env.iter()
                .find(|(name, value)| name == FILE_VARIABLE && !value.is_empty())
                .map(|(_, value)| value.into())
        });
        let path = named.clone().unwrap_or_else(|| FILE.into());
        let (text, file) = match fs::read_to_string(&path) {
            Ok(text) => (text, Some(path.clone())),
            Err(error) if named.is_none() && error.kind() == io::ErrorKind::NotFound => {
                (String::new(), None)
            }
            Err(source) => {
                let what = "the configuration";
                return Err(Error::Unreadable { what, path, source });
            }
        };
        let config = Self::parse(&text, &path, env)?;
        match exposed::find(&config, &path, &text) {
            found if found.is_empty() => Ok(Self { file, ..config }),
            found => Err(Error::Invalid(found)),
        }
    }

    /// The file that was read; none when there was none.
    #[must_use]
    pub fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    fn parse(text: &str, path: &Path, env: Vec<(String, String)>) -> Result<Self, Error> {
        let mut settings = settings::Settings::new();
        settings.read_file(text, path);
        settings.read_environment(env);
        settings.finish().map_err(Error::Invalid)
    }

    /// The URL of the store, from `url_file` if that is set.
    ///
    /// # Errors
    ///
    /// When that file cannot be read, or holds no such URL.
    pub fn store_url(&self) -> Result<SecretString, Error> {
        let Store { url, url_file, .. } = &self.store;
        secret_url("store", url, url_file, &validate::STORE)
    }

    /// The URL of NATS, from `url_file` if that is set; none where neither is.
    ///
    /// # Errors
    ///
    /// When that file cannot be read, or holds no such URL.
    pub fn nats_url(&self) -> Result<Option<SecretString>, Error> {
        let Nats { url, url_file, .. } = &self.nats;
        broker_url("nats", url, url_file, &validate::NATS)
    }

    /// The URL of `RabbitMQ`, from `url_file` if that is set; none where neither is.
    ///
    /// # Errors
    ///
    /// When that file cannot be read, or holds no such URL.
    pub fn rabbitmq_url(&self) -> Result<Option<SecretString>, Error> {
        let RabbitMq { url, url_file, .. } = &self.rabbitmq;
        broker_url("rabbitmq", url, url_file, &validate::RABBITMQ)
    }

    /// The sections in which this differs from another and that are read at the start alone.
    #[must_use]
    pub fn needs_restart(&self, other: &Self) -> Vec<&'static str> {
        let Self {
            store,
            vault,
            app_store,
            sync,
            schedule: _,
            daemon,
            guard: _,
            retention: _,
            health,
            nats,
            rabbitmq,
            log,
            traces,
            file: _,
        } = self;
        let sections = [
            ("store", *store != other.store),
            ("vault", *vault != other.vault),
            ("app_store", *app_store != other.app_store),
            (
                "sync",
                (sync.lease_ms, sync.heartbeat_ms)
                    != (other.sync.lease_ms, other.sync.heartbeat_ms),
            ),
            ("daemon", daemon.grace_ms != other.daemon.grace_ms),
            ("health", *health != other.health),
            ("nats", *nats != other.nats),
            ("rabbitmq", *rabbitmq != other.rabbitmq),
            ("log", log.format != other.log.format),
            ("traces", *traces != other.traces),
        ];
        sections
            .into_iter()
            .filter_map(|(section, differs)| differs.then_some(section))
            .collect()
    }

    /// Where the catalogs are, without a password.
    #[must_use]
    pub fn shown_store(&self) -> String {
        if self.store.url_file.as_os_str().is_empty() {
            redact::url(&self.store.url)
        } else {
            format!("the database that {} names", self.store.url_file.display())
        }
    }

    /// The configuration as the text of a file, without passwords.
    #[must_use]
    pub fn redacted(&self) -> String {
        let mut shown = self.clone();
        shown.store.url = redact::url(&shown.store.url);
        shown.app_store.base_url = redact::url(&shown.app_store.base_url);
        shown.app_store.proxy = redact::url(&shown.app_store.proxy);
        shown.nats.url = redact::nats(&shown.nats.url);
        shown.rabbitmq.url = redact::url(&shown.rabbitmq.url);
        // Only a path that is not UTF-8, which neither a file nor a variable can give, is not TOML.
        toml::to_string(&shown).unwrap_or_else(|error| format!("# {error}\n"))
    }
}

fn broker_url(
    section: &'static str,
    url: &str,
    url_file: &Path,
    scheme: &validate::Scheme,
) -> Result<Option<SecretString>, Error> {
    if url.is_empty() && url_file.as_os_str().is_empty() {
        return Ok(None);
    }
    secret_url(section, url, url_file, scheme).map(Some)
}

/// The URL of a section, from the file that it may be in.
fn secret_url(
    section: &'static str,
    url: &str,
    url_file: &Path,
    scheme: &validate::Scheme,
) -> Result<SecretString, Error> {
    if url_file.as_os_str().is_empty() {
        return Ok(url.into());
    }
    let text = fs::read_to_string(url_file).map_err(|source| Error::Unreadable {
        what: scheme.url_file,
        path: url_file.to_owned(),
        source,
    })?;
    let url = text.trim();
    if (scheme.fits)(url) {
        return Ok(url.into());
    }
    let (path, does) = (url_file.display(), scheme.does);
    Err(Error::Invalid(vec![format!(
        "{path}: the file named by {section}.url_file must hold a URL that {does}"
    )]))
}

/// As [`Config::redacted`].
impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.redacted())
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

#[cfg(test)]
mod tests;
