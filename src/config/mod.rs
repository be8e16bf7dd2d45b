//! How a worker is set up: `worker.toml`, then the environment over it.
//!
//! Every key of the file can be set as a variable `CATALOG_SYNC_<SECTION>__<KEY>`. What must hold throughout: the defaults
//! serve as they are; an unknown key or variable is an error that names the nearest; a wrong value is told with the place
//! it comes from; no secret needs to be in the file, and none is ever shown. Relative paths are relative to the folder
//! in which the worker is started.

mod exposed;
mod redact;
mod sections;
mod settings;
mod validate;

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
};

use secrecy::SecretString;
use serde::{Deserialize, Serialize};

pub use self::sections::{
    AppStore, Daemon, Format, Health, Log, Nats, RabbitMq, Schedule, Store, Sync, Traces, Vault,
};
use crate::{catalog::Limits, store::Retention};

/// The file that is read from the current folder when no other is named.
pub const FILE: &str = "worker.toml";

/// The annotated reference: every key at its default.
pub const REFERENCE: &str = include_str!("../../worker.toml");

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

#[cfg(test)]
mod tests;
