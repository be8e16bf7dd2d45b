//! A Postgres server of the benchmark's own, as Debian ships it: what was committed is on the disk.

use std::{
    fs,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use tempfile::TempDir;

use super::process;

/// The user and group of the server when this runs as root, as whom Postgres does not start.
const NOBODY: u32 = 65534;

pub(crate) struct Postgres {
    folder: TempDir,
    server: Child,
}

impl Postgres {
    pub(crate) fn start() -> anyhow::Result<Self> {
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
        let data = folder.path().join("data");
        let as_root = rustix::process::getuid().is_root();
        if as_root {
            std::os::unix::fs::chown(folder.path(), Some(NOBODY), Some(NOBODY))?;
        }
        let ordinary = |program: &str| -> anyhow::Result<Command> {
            let mut command = Command::new(find(program)?);
            if as_root {
                command.uid(NOBODY).gid(NOBODY);
            }
            command.current_dir(folder.path());
            Ok(command)
        };
        let made = ordinary("initdb")?
            .args([
                "--username=postgres",
                "--auth=trust",
                "--encoding=UTF8",
                "--locale=C",
            ])
            .arg("-D")
            .arg(&data)
            .stdout(Stdio::null())
            .status()?;
        ensure!(made.success(), "initdb failed");
        let log = fs::File::create(folder.path().join("log"))?;
        let server = ordinary("postgres")?
            .arg("-D")
            .arg(&data)
            .arg("-k")
            .arg(folder.path())
            .args(["-c", "listen_addresses=", "-c", "shared_buffers=128MB"])
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()?;
        let server = Self { folder, server };
        for _ in 0..600 {
            if server.folder.path().join(".s.PGSQL.5432").exists() {
                return Ok(server);
            }
            thread::sleep(Duration::from_millis(50));
        }
        bail!(
            "Postgres did not start: {}",
            fs::read_to_string(server.folder.path().join("log"))?
        )
    }

    pub(crate) fn url(&self) -> String {
        format!(
            "postgres://postgres@localhost/postgres?host={}",
            self.folder.path().display()
        )
    }

    pub(crate) fn cpu(&self) -> anyhow::Result<Duration> {
        process::cpu_of_family(self.server.id())
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        let id = i32::try_from(self.server.id())
            .ok()
            .and_then(rustix::process::Pid::from_raw);
        // A fast shutdown; its children end with it.
        let told = id.map(|id| rustix::process::kill_process(id, rustix::process::Signal::INT));
        if let Err(error) = self.server.wait() {
            eprintln!("Postgres could not be ended ({told:?}): {error}");
        }
    }
}

/// Debian keeps the server's programs beside the path.
fn find(program: &str) -> anyhow::Result<PathBuf> {
    let mut versions: Vec<PathBuf> = fs::read_dir("/usr/lib/postgresql")
        .map(|entries| {
            entries
                .flatten()
                .map(|entry| entry.path().join("bin"))
                .collect()
        })
        .unwrap_or_default();
    versions.sort();
    versions.push(Path::new("/usr/bin").to_owned());
    versions.push(Path::new("/usr/local/bin").to_owned());
    let found = versions.into_iter().map(|folder| folder.join(program));
    found
        .into_iter()
        .find(|path| path.exists())
        .with_context(|| format!("there is no {program}: install Debian's package postgresql"))
}
