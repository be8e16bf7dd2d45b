//! States and keys on disk.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::super::Error;
use super::State;

impl State {
    /// Reads a state from TOML, as in `docs/simulator.toml`.
    ///
    /// # Errors
    /// When the text is not TOML, has a key that means nothing here, or holds what [`State::complete`] refuses. The message
    /// names the line, or the place such as `teams[0].apps[1]`.
    pub fn from_toml(text: &str) -> Result<Self, Error> {
        let mut state: Self = toml::from_str(text)
            .map_err(|error| Error::State(error.to_string().trim_end().to_owned()))?;
        state.complete()?;
        Ok(state)
    }

    /// Writes the state as TOML that [`State::from_toml`] reads back, private keys included.
    ///
    /// # Errors
    /// When an `extra` attribute holds a null inside a list or an object, which TOML cannot say.
    pub fn to_toml(&self) -> Result<String, Error> {
        toml::to_string(self).map_err(|error| Error::State(error.to_string()))
    }

    /// Writes each private key as Apple hands it out, `AuthKey_<KEYID>.p8`, readable by its owner only; an In-App Purchase
    /// key is a `SubscriptionKey_<KEYID>.p8`. Makes the folder when it is missing, and gives the paths.
    ///
    /// # Errors
    /// When the folder or a file cannot be written.
    pub fn write_keys(&self, dir: impl AsRef<Path>) -> Result<Vec<PathBuf>, Error> {
        let dir = dir.as_ref();
        fs::create_dir_all(dir).map_err(|source| Error::Write {
            path: dir.to_owned(),
            source,
        })?;
        let mut paths = Vec::new();
        for key in self.teams.iter().flat_map(|team| &team.keys) {
            let path = dir.join(key.file_name());
            write_private(&path, &key.private_key).map_err(|source| Error::Write {
                path: path.clone(),
                source,
            })?;
            paths.push(path);
        }
        Ok(paths)
    }
}

/// Replaces the file, so that an old one with a wider mode never holds the new key.
fn write_private(path: &Path, text: &str) -> std::io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(text.as_bytes())
}
