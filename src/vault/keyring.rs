//! The master key file.

use std::{
    fmt,
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::Path,
};

use aws_lc_rs::rand;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use zeroize::Zeroizing;

use super::Error;
use crate::clock::Instant;

/// The length of an AES-256 key.
pub(super) const KEY_LEN: usize = 32;

/// More than this is no master key file.
const MAX_BYTES: u64 = 64 * 1024;

/// A master key, zeroized when it is dropped.
pub(super) struct MasterKey {
    pub(super) id: String,
    /// Boxed, so that moving it leaves no copy behind.
    pub(super) key: Box<Zeroizing<[u8; KEY_LEN]>>,
}

/// The id alone.
impl fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("MasterKey").field(&self.id).finish()
    }
}

/// The master keys of a file: at least one, no id twice.
#[derive(Debug)]
pub(super) struct Keyring {
    first: MasterKey,
    others: Vec<MasterKey>,
}

impl Keyring {
    pub(super) fn load(path: &Path) -> Result<Self, Error> {
        let io = |source: io::Error| match source.kind() {
            io::ErrorKind::NotFound => Error::Missing { path: path.into() },
            _ => Error::Io {
                path: path.into(),
                action: "read",
                source,
            },
        };
        let file = File::open(path).map_err(io)?;
        let metadata = file.metadata().map_err(io)?;
        if !metadata.is_file() {
            return Err(io(io::Error::other("it is not a file")));
        }
        let mode = metadata.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(Error::Exposed {
                path: path.into(),
                mode,
            });
        }
        if metadata.len() > MAX_BYTES {
            return Err(io(io::Error::other("it is larger than 64 KiB")));
        }
        let capacity = usize::try_from(metadata.len()).unwrap_or_default();
        // One byte more than the file has, so that reading to its end does not move the buffer.
        let mut bytes = Zeroizing::new(Vec::with_capacity(capacity + 1));
        file.take(metadata.len())
            .read_to_end(&mut bytes)
            .map_err(io)?;
        Self::parse(&bytes).map_err(|error| match error {
            Malformed::Line { line, what } => Error::Malformed {
                path: path.into(),
                line,
                what,
            },
            Malformed::Empty => Error::Empty { path: path.into() },
        })
    }

    fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut keys: Vec<MasterKey> = Vec::new();
        for (index, line) in bytes.split(|&byte| byte == b'\n').enumerate() {
            let line = line.trim_ascii();
            if line.is_empty() || line.starts_with(b"#") {
                continue;
            }
            let malformed = |what| Malformed::Line {
                line: index + 1,
                what,
            };
            let key = MasterKey::parse(line).map_err(malformed)?;
            if keys.iter().any(|other| other.id == key.id) {
                return Err(malformed("this id is there twice"));
            }
            keys.push(key);
        }
        let mut keys = keys.into_iter();
        let first = keys.next().ok_or(Malformed::Empty)?;
        Ok(Self {
            first,
            others: keys.collect(),
        })
    }

    /// The key that encrypts.
    pub(super) fn first(&self) -> &MasterKey {
        &self.first
    }

    pub(super) fn find(&self, id: &str) -> Option<&MasterKey> {
        self.all().find(|key| key.id == id)
    }

    pub(super) fn ids(&self) -> Vec<String> {
        self.all().map(|key| key.id.clone()).collect()
    }

    fn all(&self) -> impl Iterator<Item = &MasterKey> {
        std::iter::once(&self.first).chain(&self.others)
    }

    #[cfg(any(test, fuzzing))]
    pub(super) fn of_text(text: &str) -> Self {
        Self::parse(text.as_bytes()).unwrap_or_else(|_| unreachable!("no keyring"))
    }
}

/// What is wrong with the content of a master key file.
enum Malformed {
    Line { line: usize, what: &'static str },
    Empty,
}

impl MasterKey {
    fn parse(line: &[u8]) -> Result<Self, &'static str> {
        let mut halves = line.splitn(2, |&byte| byte == b':');
        let (Some(id), Some(base64)) = (halves.next(), halves.next()) else {
            return Err("there is no colon");
        };
        let fits = |&byte: &u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-');
        let id = str::from_utf8(id.trim_ascii_end())
            .ok()
            .filter(|id| (1..=32).contains(&id.len()) && id.as_bytes().iter().all(fits))
            .ok_or("the id is not 1 to 32 of a-z, 0-9 and '-'")?;
        // Base64 decoding asks for room in whole groups of three bytes.
        let mut decoded = Zeroizing::new([0; KEY_LEN + 3]);
        let mut key = Box::new(Zeroizing::new([0; KEY_LEN]));
        let decoded = STANDARD
            .decode_slice(base64.trim_ascii(), decoded.as_mut_slice())
            .ok()
            .and_then(|length| decoded.get(..length))
            .filter(|decoded| decoded.len() == KEY_LEN)
            .ok_or("the key is not the base64 of 32 bytes")?;
        key.copy_from_slice(decoded);
        Ok(Self {
            id: id.to_owned(),
            key,
        })
    }
}

/// Makes a master key file that only its owner can read, with one new key named after the day and some chance, and gives that key's id.
///
/// # Errors
///
/// When there is a file already, which is never overwritten, or it cannot be written.
pub fn create(path: &Path, now: Instant) -> Result<String, Error> {
    let io = |source: io::Error| match source.kind() {
        io::ErrorKind::AlreadyExists => Error::Exists { path: path.into() },
        _ => Error::Io {
            path: path.into(),
            action: "made",
            source,
        },
    };
    // Two keys of one day are told apart, so that both can stand in one file.
    let mut suffix = [0; 2];
    rand::fill(&mut suffix).map_err(|_| Error::Crypto)?;
    let id = format!(
        "{}-{:04x}",
        now.format("k%Y%m%d"),
        u16::from_be_bytes(suffix)
    );
    let mut key = Zeroizing::new([0; KEY_LEN]);
    rand::fill(key.as_mut_slice()).map_err(|_| Error::Crypto)?;
    let mut content = Zeroizing::new(String::with_capacity(512));
    content.push_str(
        "# The master keys of catalog-sync: the first encrypts, all decrypt. Without this file the stored keys cannot be\n\
         # opened: keep a copy apart from the backups of the database.\n",
    );
    content.push_str(&id);
    content.push(':');
    STANDARD.encode_string(key.as_slice(), &mut content);
    content.push('\n');

    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(io)?;
    let written = file
        .write_all(content.as_bytes())
        .and_then(|()| file.sync_all())
        .and_then(|()| sync_folder_of(path));
    if let Err(error) = written {
        // Best effort: what is left would be told as malformed.
        drop(fs::remove_file(path));
        return Err(io(error));
    }
    Ok(id)
}

/// A file survives a crash once its folder is on disk, too.
fn sync_folder_of(path: &Path) -> io::Result<()> {
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}
