//! Where master keys come from.

use std::{
    fmt,
    fs::OpenOptions,
    io::{self, Read as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    str::FromStr,
};

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::{Error, program};
use crate::environment;

/// More than this is no master key file.
pub(super) const MAX_BYTES: usize = 64 * 1024;

/// A place that holds master keys, written `file:PATH`, `credential:NAME`, `env:NAME` or `command:PROGRAM ARGUMENT..`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Source {
    /// A file that others cannot read.
    File(PathBuf),
    /// A credential that systemd handed over: a file in `$CREDENTIALS_DIRECTORY`.
    Credential(String),
    /// A variable of the environment, with commas between the keys.
    Variable(String),
    /// What a program writes to its standard output; its arguments are what is between blanks. No shell is run.
    Command(Vec<String>),
}

/// Why a text names no source.
#[derive(Debug, thiserror::Error)]
pub enum InvalidSource {
    /// It begins with none of the four words.
    #[error("a source of master keys begins with file:, credential:, env: or command:")]
    Unknown,
    /// Nothing comes after that.
    #[error("nothing comes after '{0}:'")]
    Nothing(&'static str),
    /// The name of a credential holds a slash.
    #[error("a credential's name has no '/'; it is a file in $CREDENTIALS_DIRECTORY")]
    Slash,
}

impl FromStr for Source {
    type Err = InvalidSource;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (word, rest) = text.split_once(':').ok_or(InvalidSource::Unknown)?;
        let rest = rest.trim();
        let some = |word| match rest {
            "" => Err(InvalidSource::Nothing(word)),
            rest => Ok(rest),
        };
        match word {
            "file" => Ok(Self::File(some("file")?.into())),
            "credential" if rest.contains('/') => Err(InvalidSource::Slash),
            "credential" => Ok(Self::Credential(some("credential")?.to_owned())),
            "env" => Ok(Self::Variable(some("env")?.to_owned())),
            "command" => Ok(Self::Command(
                some("command")?
                    .split_whitespace()
                    .map(str::to_owned)
                    .collect(),
            )),
            _ => Err(InvalidSource::Unknown),
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "file:{}", path.display()),
            Self::Credential(name) => write!(f, "credential:{name}"),
            Self::Variable(name) => write!(f, "env:{name}"),
            Self::Command(words) => write!(f, "command:{}", words.join(" ")),
        }
    }
}

impl TryFrom<String> for Source {
    type Error = InvalidSource;

    fn try_from(text: String) -> Result<Self, InvalidSource> {
        text.parse()
    }
}

impl From<Source> for String {
    fn from(source: Source) -> Self {
        source.to_string()
    }
}

impl Source {
    /// Where its keys are, for people: a file by its path alone.
    #[must_use]
    pub fn place(&self) -> String {
        match self {
            Self::File(path) => path.display().to_string(),
            other => other.to_string(),
        }
    }

    /// The text that it holds; a program is not given the variables that are among all sources.
    pub(super) fn read(&self, all: &[Self]) -> Result<Zeroizing<Vec<u8>>, Error> {
        match self {
            Self::File(path) => read_file(path),
            Self::Credential(name) => {
                let folder = environment::variable("CREDENTIALS_DIRECTORY")
                    .ok_or_else(|| Error::NoCredentials { name: name.clone() })?;
                read_file(&Path::new(&folder).join(name))
            }
            Self::Variable(name) => {
                let mut bytes = environment::secret(name)
                    .ok_or_else(|| Error::NoVariable { name: name.clone() })?;
                for byte in bytes.iter_mut().filter(|byte| **byte == b',') {
                    *byte = b'\n';
                }
                Ok(bytes)
            }
            Self::Command(words) => {
                let variables: Vec<&str> = all
                    .iter()
                    .filter_map(|source| match source {
                        Self::Variable(name) => Some(&**name),
                        Self::File(_) | Self::Credential(_) | Self::Command(_) => None,
                    })
                    .collect();
                program::output_of(words, &variables).map_err(|why| Error::Command {
                    place: self.place(),
                    why,
                })
            }
        }
    }
}

/// Reads a file that others cannot read.
pub(super) fn read_file(path: &Path) -> Result<Zeroizing<Vec<u8>>, Error> {
    let io = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound => Error::Missing { path: path.into() },
        _ => Error::Io {
            path: path.into(),
            action: "read",
            source,
        },
    };
    // A pipe would be waited for.
    let flags = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let opened = OpenOptions::new().read(true).custom_flags(flags).open(path);
    let file = opened.map_err(io)?;
    let metadata = file.metadata().map_err(io)?;
    if !metadata.is_file() {
        return Err(io(io::Error::other("it is not a file")));
    }
    let mode = metadata.permissions().mode() & 0o777;
    if is_exposed(mode, metadata.uid(), rustix::process::geteuid().as_raw()) {
        return Err(Error::Exposed {
            path: path.into(),
            mode,
        });
    }
    // One byte more than is allowed, and never grown, so that reading to the end leaves no copy behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_BYTES + 1));
    file.take(MAX_BYTES as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(io)?;
    if bytes.len() > MAX_BYTES {
        return Err(io(io::Error::other("it is larger than 64 KiB")));
    }
    Ok(bytes)
}

/// Whether others than the user of this process and root can touch a file of this mode and owner.
///
/// A file of root's that its group may read is how root hands one to a user: Kubernetes does so with `fsGroup`, and systemd's
/// credentials look so, as an access list shows as the group's bits.
fn is_exposed(mode: u32, owner: u32, user: u32) -> bool {
    let handed_over = owner == 0 && user != 0;
    mode & if handed_over { 0o037 } else { 0o077 } != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_is_read_as_it_is_written() {
        for text in [
            "file:master.key",
            "file:/etc/catalog-sync/master.key",
            "credential:master.key",
            "env:MASTER_KEYS",
            "command:/usr/local/bin/unwrap --region eu-central-1",
        ] {
            assert_eq!(text.parse::<Source>().unwrap().to_string(), text);
        }
        for text in [
            "master.key",
            "",
            "file:",
            "env: ",
            "command:",
            "credential:",
            "vault:x",
            "credential:a/b",
        ] {
            text.parse::<Source>().unwrap_err();
        }
    }

    #[test]
    fn a_group_may_read_only_what_root_hands_over() {
        for (mode, owner, user, exposed) in [
            (0o600, 1000, 1000, false),
            (0o400, 1000, 1000, false),
            (0o640, 1000, 1000, true),
            (0o440, 0, 1000, false),
            (0o640, 0, 1000, false),
            (0o660, 0, 1000, true),
            (0o444, 0, 1000, true),
            (0o440, 0, 0, true),
            (0o440, 1001, 1000, true),
            (0o604, 1000, 1000, true),
            (0o601, 1000, 1000, true),
        ] {
            assert_eq!(
                is_exposed(mode, owner, user),
                exposed,
                "{mode:o} {owner} {user}"
            );
        }
    }
}
