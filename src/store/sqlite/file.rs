//! The file before SQLite opens it: where it may be, and who may read it or put another in its place.

use std::{
    fs::OpenOptions,
    io::{self, ErrorKind},
    path::Path,
};

use super::folder;
use crate::store::{Disk, Error, Missing};

/// Makes the file if there is none and that is allowed, for its owner alone; SQLite gives its log and index the same mode.
///
/// A file that exists is not opened: closing it again would undo the locks that SQLite has on it in this process, which
/// belong to the process and the file, not to who opened it (<https://www.sqlite.org/howtocorrupt.html>, 2.2).
pub(super) fn prepare(path: &Path, missing: Missing) -> Result<(), Error> {
    if missing == Missing::Refused && !path.exists() {
        return Err(Error::Unusable(format!(
            "there is no database file '{}': 'catalog-sync init' makes one, or start in the folder where it is",
            path.display()
        )));
    }
    let folder = folder(path);
    if !folder.is_dir() {
        return Err(Error::Unusable(format!(
            "the folder '{}' of the database file '{}' does not exist: make it, or name another file",
            folder.display(),
            path.display()
        )));
    }
    if path.is_dir() {
        return Err(Error::Unusable(format!(
            "the database file '{}' is a folder: name a file",
            path.display()
        )));
    }
    if let Some(name) = network_file_system(folder) {
        return Err(Error::Unusable(format!(
            "the database file '{}' is on a network file system ({name}), where SQLite's locks and its write-ahead log are \
             not reliable and the database would be corrupted: keep it on a disk of this host, or use Postgres",
            path.display()
        )));
    }
    refuse_open_folder(folder, path)?;
    match create(path) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => refuse_exposed(path),
        Err(error) => Err(Error::Unusable(format!(
            "the database file '{}' cannot be made ({error}): give this user the right to write in the folder '{}', or \
             name another file",
            path.display(),
            folder.display()
        ))),
    }
}

fn create(path: &Path) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.create_new(true).write(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path).map(drop)
}

/// Whether a group may read them is for their owner to say: a program that reads the views may be another user's.
fn refuse_exposed(path: &Path) -> Result<(), Error> {
    for suffix in ["", "-wal", "-shm"] {
        let mut file = path.as_os_str().to_owned();
        file.push(suffix);
        let file = Path::new(&file);
        let Some(mode) = mode(file).filter(|mode| mode & 0o007 != 0) else {
            continue;
        };
        return Err(Error::Unusable(format!(
            "the database file '{file}' is open to everybody on this machine (mode {mode:03o}), and holds sealed keys and catalogs: \
             chmod 600 '{file}'",
            file = file.display()
        )));
    }
    Ok(())
}

/// Where everybody may write, anybody can put another file in the place of this one.
fn refuse_open_folder(folder: &Path, path: &Path) -> Result<(), Error> {
    const STICKY: u32 = 0o1000;
    match mode(folder) {
        Some(mode) if mode & 0o002 != 0 && mode & STICKY == 0 => Err(Error::Unusable(format!(
            "everybody on this machine may write in the folder '{folder}' (mode {mode:03o}), and put another file in the place of the \
             database file '{}': chmod o-w '{folder}', or keep it in a folder of its own (mkdir -m 700)",
            path.display(),
            folder = folder.display()
        ))),
        _ => Ok(()),
    }
}

/// The permissions of what is there. What cannot be looked at, SQLite will not open either, and says why.
#[cfg(unix)]
fn mode(path: &Path) -> Option<u32> {
    let permissions = std::fs::metadata(path).ok()?.permissions();
    Some(std::os::unix::fs::PermissionsExt::mode(&permissions) & 0o7777)
}

#[cfg(not(unix))]
fn mode(_: &Path) -> Option<u32> {
    None
}

/// The disk that a folder is on.
#[cfg(target_os = "linux")]
pub(super) fn disk(folder: &Path) -> Option<Disk> {
    let magic = magic(folder)?;
    let room = rustix::fs::statvfs(folder).ok()?;
    let local = match magic {
        0xef53 => Some("ext4"),
        0x5846_5342 => Some("XFS"),
        0x9123_683e => Some("Btrfs"),
        0x2fc1_2fc1 => Some("ZFS"),
        0x0102_1994 => Some("tmpfs"),
        0x794c_7630 => Some("overlayfs"),
        0x6573_5546 => Some("FUSE"),
        _ => None,
    };
    Some(Disk {
        file_system: name_of(magic)
            .or(local)
            .map_or_else(|| format!("{magic:#x}"), str::to_owned),
        free_bytes: room.f_bavail.saturating_mul(room.f_frsize),
    })
}

#[cfg(not(target_os = "linux"))]
pub(super) fn disk(_: &Path) -> Option<Disk> {
    None
}

/// The network file system that a folder is on. Those behind FUSE, sshfs for one, cannot be told from local ones.
#[cfg(target_os = "linux")]
fn network_file_system(folder: &Path) -> Option<&'static str> {
    name_of(magic(folder)?)
}

/// What the kernel calls the file system.
#[cfg(target_os = "linux")]
fn magic(folder: &Path) -> Option<u32> {
    let file_system = rustix::fs::statfs(folder).ok()?;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the kernel's magic numbers have 32 bits, in a field whose type varies"
    )]
    let magic = file_system.f_type as u32;
    Some(magic)
}

#[cfg(not(target_os = "linux"))]
fn network_file_system(_: &Path) -> Option<&'static str> {
    None
}

/// Numbers from Linux' `include/uapi/linux/magic.h` and the file systems' own sources.
#[cfg(target_os = "linux")]
fn name_of(magic: u32) -> Option<&'static str> {
    match magic {
        0x6969 => Some("NFS"),
        0x517b => Some("SMB"),
        0xff53_4d42 => Some("CIFS"),
        0xfe53_4d42 => Some("SMB2"),
        0x5346_414f | 0x6b41_4653 => Some("AFS"),
        0x00c3_6400 => Some("Ceph"),
        _ => None,
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::name_of;

    #[test]
    fn network_file_systems_are_told_from_disks() {
        assert_eq!(name_of(0x6969), Some("NFS"));
        assert_eq!(name_of(0xfe53_4d42), Some("SMB2"));
        assert_eq!(name_of(0xef53), None, "ext4");
        assert_eq!(name_of(0x0102_1994), None, "tmpfs");
    }
}
