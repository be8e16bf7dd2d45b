//! Files that hold a password and that others can read, and a configuration that others can write.
//!
//! Whether a group may read them is for their owner to say: a container's secrets are often readable by its group alone.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use super::{Config, redact};

/// What is to be mended, one line for each such file: the configuration, which was read from `file`, and those it names.
pub(super) fn find(config: &Config, file: &Path, text: &str) -> Vec<String> {
    let named = [
        ("store.url_file", &config.store.url_file),
        ("nats.url_file", &config.nats.url_file),
        ("nats.credentials_file", &config.nats.credentials_file),
        ("rabbitmq.url_file", &config.rabbitmq.url_file),
    ];
    let named = named.into_iter().filter_map(|(key, path)| {
        let mode = mode_for_others(path)?;
        let path = path.display();
        Some(format!(
            "{key}: {path} holds a secret, and everybody on this machine can open it (mode {mode:03o}): chmod 600 {path}; where \
             Kubernetes mounts it, 'defaultMode: 0440'"
        ))
    });
    let own = mode_for_others(file)
        .into_iter()
        .flat_map(|mode| passwords(text).map(move |key| (mode, key)));
    let own = own.map(|(mode, key)| {
        let path = file.display();
        let elsewhere = match key {
            "app_store.proxy" => "set it as the variable CATALOG_SYNC_APP_STORE__PROXY".to_owned(),
            key => format!("name a file that holds it in {key}_file"),
        };
        format!(
            "{path}: {key} holds a password, and everybody on this machine can open the file (mode {mode:03o}): chmod 600 {path}, or \
             {elsewhere}"
        )
    });
    let writable = fs::metadata(file)
        .ok()
        .map(|metadata| metadata.permissions().mode() & 0o777)
        .filter(|mode| mode & 0o002 != 0)
        .map(|mode| {
            let path = file.display();
            format!(
                "{path}: everybody on this machine can write it (mode {mode:03o}), and it says where keys go and which programs \
                 run: chmod o-w {path}"
            )
        });
    own.chain(named).chain(writable).collect()
}

/// The keys that hold a password in the file itself; what the environment sets is not in it.
fn passwords(text: &str) -> impl Iterator<Item = &'static str> {
    let table: toml::Table = text.parse().unwrap_or_default();
    let holds = move |name: &str| {
        let (section, key) = name.split_once('.')?;
        let url = table.get(section)?.get(key)?.as_str()?;
        let shown = match section {
            "nats" => redact::nats(url),
            _ => redact::url(url),
        };
        Some(shown.contains(redact::HIDDEN))
    };
    let keys = ["store.url", "nats.url", "rabbitmq.url", "app_store.proxy"];
    keys.into_iter()
        .filter(move |name| holds(name) == Some(true))
}

/// The permissions of a file that is there, when everybody can read or write it.
fn mode_for_others(path: &Path) -> Option<u32> {
    let metadata = fs::metadata(path).ok().filter(fs::Metadata::is_file)?;
    let mode = metadata.permissions().mode() & 0o777;
    (mode & 0o007 != 0).then_some(mode)
}
