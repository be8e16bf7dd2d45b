//! The master key file: made, and changed whole or not at all.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use aws_lc_rs::rand;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use rustix::fs::{FlockOperation, Gid, Uid, fchown, flock};
use zeroize::Zeroizing;

use super::{
    Error,
    keyring::{KEY_LEN, parse},
    source::{MAX_BYTES, read_file},
};
use crate::clock::Instant;

const HEAD: &str = "\
# The master keys of catalog-sync: the first encrypts, all decrypt. Without this file the stored keys cannot be
# opened: keep a copy apart from the backups of the database.
";

/// Makes a master key file that only its owner can read, with one new key named after the day and some chance, and gives that key's id.
///
/// # Errors
///
/// When there is a file already, which is never overwritten, or it cannot be written.
pub fn create(path: &Path, now: Instant) -> Result<String, Error> {
    let (id, line) = new_key(now)?;
    let mut content = Zeroizing::new(Vec::with_capacity(512));
    content.extend_from_slice(HEAD.as_bytes());
    content.extend_from_slice(&line);
    let io = |source: io::Error| match source.kind() {
        io::ErrorKind::AlreadyExists => Error::Exists { path: path.into() },
        _ => failed(path, "made", source),
    };
    let mut file = new_file(path).map_err(io)?;
    let written = file
        .write_all(&content)
        .and_then(|()| file.sync_all())
        .and_then(|()| sync_folder_of(path));
    if let Err(error) = written {
        // Best effort: what is left would be told as malformed.
        drop(fs::remove_file(path));
        return Err(io(error));
    }
    Ok(id)
}

/// Adds a new key at the end, where it decrypts and does not encrypt, and gives its id.
///
/// # Errors
///
/// When the file is not as it should be, or cannot be written.
pub fn add(path: &Path, now: Instant) -> Result<String, Error> {
    let (id, line) = new_key(now)?;
    change(path, |lines, content| {
        for line in lines {
            push(content, line);
        }
        content.extend_from_slice(&line);
    })?;
    Ok(id)
}

/// Puts a key before all others, so that it encrypts. Gives false when it is not in the file.
///
/// # Errors
///
/// As [`add`].
pub fn promote(path: &Path, id: &str) -> Result<bool, Error> {
    let mut found = false;
    change(path, |lines, content| {
        let key = lines.iter().find(|line| is_key_of(line, id));
        found = key.is_some();
        let first = lines.iter().position(|line| is_key(line));
        for (index, line) in lines.iter().enumerate() {
            if let Some(key) = key.filter(|_| Some(index) == first) {
                push(content, key);
            }
            if !is_key_of(line, id) {
                push(content, line);
            }
        }
    })?;
    Ok(found)
}

/// Makes a comment of a key's line: it is no key of the file any more, and not lost for backups that need it. Gives false when it is
/// not in the file, or is its only key.
///
/// # Errors
///
/// As [`add`].
pub fn retire(path: &Path, id: &str, now: Instant) -> Result<bool, Error> {
    let mut retired = false;
    change(path, |lines, content| {
        retired = lines.iter().any(|line| is_key_of(line, id))
            && lines.iter().filter(|line| is_key(line)).count() > 1;
        for line in lines {
            if retired && is_key_of(line, id) {
                content.extend_from_slice(now.format("# retired %Y-%m-%d ").to_string().as_bytes());
            }
            push(content, line);
        }
    })?;
    Ok(retired)
}

fn is_key(line: &[u8]) -> bool {
    let line = line.trim_ascii();
    !line.is_empty() && !line.starts_with(b"#")
}

fn is_key_of(line: &[u8], id: &str) -> bool {
    is_key(line)
        && line
            .trim_ascii()
            .split(|&byte| byte == b':')
            .next()
            .is_some_and(|before| before.trim_ascii_end() == id.as_bytes())
}

fn push(content: &mut Vec<u8>, line: &[u8]) {
    content.extend_from_slice(line);
    content.push(b'\n');
}

/// A new key's id and its line: two keys of one day are told apart, so that both can stand in one file.
fn new_key(now: Instant) -> Result<(String, Zeroizing<Vec<u8>>), Error> {
    let mut suffix = [0; 2];
    rand::fill(&mut suffix).map_err(|_| Error::Crypto)?;
    let suffix = u16::from_be_bytes(suffix);
    let id = format!("{}-{suffix:04x}", now.format("k%Y%m%d"));
    let mut key = Zeroizing::new([0; KEY_LEN]);
    rand::fill(key.as_mut_slice()).map_err(|_| Error::Crypto)?;
    let mut text = Zeroizing::new([0; 4 * KEY_LEN.div_ceil(3)]);
    let length = STANDARD
        .encode_slice(key.as_slice(), text.as_mut_slice())
        .map_err(|_| Error::Crypto)?;
    let mut line = Zeroizing::new(Vec::with_capacity(id.len() + 2 + text.len()));
    line.extend_from_slice(id.as_bytes());
    line.push(b':');
    line.extend_from_slice(text.get(..length).unwrap_or_default());
    line.push(b'\n');
    Ok((id, line))
}

/// Writes the file anew beside the old one, with its owner and mode, and puts it in its place: a reader sees the one or the other.
fn change(path: &Path, edit: impl FnOnce(&[&[u8]], &mut Vec<u8>)) -> Result<(), Error> {
    let io = |source| failed(path, "changed", source);
    // A link stays one.
    let path = &fs::canonicalize(path).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => Error::Missing { path: path.into() },
        _ => io(source),
    })?;
    let old = File::open(path).map_err(io)?;
    flock(&old, FlockOperation::NonBlockingLockExclusive).map_err(|error| {
        io(io::Error::other(format!(
            "perhaps another command changes it just now: {error}"
        )))
    })?;
    let metadata = old.metadata().map_err(io)?;
    let now = fs::metadata(path).map_err(io)?;
    if (now.dev(), now.ino()) != (metadata.dev(), metadata.ino()) {
        return Err(io(io::Error::other("another command has just changed it")));
    }
    let content = read_file(path)?;
    let place = path.display().to_string();
    parse(&content, &place)?;
    let text = content.strip_suffix(b"\n").unwrap_or(&content);
    let lines: Vec<&[u8]> = text.split(|&byte| byte == b'\n').collect();
    // Room for one more key, so that the buffer never moves.
    let mut changed = Zeroizing::new(Vec::with_capacity(content.len() + 512));
    edit(&lines, &mut changed);
    if parse(&changed, &place)?.is_empty() {
        return Err(Error::Empty {
            places: vec![place],
        });
    }

    if changed.len() > MAX_BYTES {
        return Err(io(io::Error::other("it would be larger than 64 KiB")));
    }

    let beside = beside(path);
    let written = new_file(&beside).and_then(|mut file| {
        file.write_all(&changed)?;
        let made = file.metadata()?;
        if (made.uid(), made.gid()) != (metadata.uid(), metadata.gid()) {
            let (owner, group) = (Uid::from_raw(metadata.uid()), Gid::from_raw(metadata.gid()));
            fchown(&file, Some(owner), Some(group))?;
        }
        file.set_permissions(fs::Permissions::from_mode(metadata.mode() & 0o777))?;
        file.sync_all()?;
        fs::rename(&beside, path)?;
        sync_folder_of(path)
    });
    if let Err(error) = written {
        // Best effort: it may have taken its place already.
        drop(fs::remove_file(&beside));
        return Err(io(error));
    }
    Ok(())
}

/// The name of the new file; what a change left there that was cut off is no use.
fn beside(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let beside = path.with_file_name(name);
    // The lock says that nobody writes to it now.
    drop(fs::remove_file(&beside));
    beside
}

fn new_file(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
}

fn failed(path: &Path, action: &'static str, source: io::Error) -> Error {
    Error::Io {
        path: path.into(),
        action,
        source,
    }
}

/// A file survives a crash once its folder is on disk, too.
fn sync_folder_of(path: &Path) -> io::Result<()> {
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}
