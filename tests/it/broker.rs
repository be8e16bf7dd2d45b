//! A message broker for the tests, in a folder of its own, which can be killed and started again.
//!
//! The server is the child of a shell that reads from a pipe whose other end this process holds. A line on the pipe ends
//! the server or starts it again; when this process ends, however it ends, the pipe closes, and the shell stops the server
//! and removes the folder.

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    net::TcpListener,
    os::unix::{fs::MetadataExt as _, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{ChildStdin, Command, Stdio},
    sync::{
        Mutex,
        atomic::{AtomicU16, Ordering},
        mpsc::{self, Receiver},
    },
    time::Duration,
};

use tempfile::TempDir;

/// The user and group as whom the server runs if the tests run as root.
const NOBODY: u32 = 65534;

/// How long a server may take to come up on a machine that is busy.
const GENEROUS: Duration = Duration::from_mins(2);

/// What the shell itself has to say goes to the log as well.
const BEGIN: &str = "exec 2>&1\nfolder=$1\n";

/// Follows the functions `start`, which leaves a server in `$server`, `kill_hard`, `stop_gently` and `finish` of a broker's own script.
const GUARD: &str = r#"
start
while read -r order; do
  case $order in
    kill) kill_hard; wait $server; echo "guard: ended" ;;
    stop) stop_gently; wait $server; echo "guard: ended" ;;
    start) start ;;
  esac
done
# Nobody reads any more, and a shell that writes to a closed pipe is ended by it.
exec >/dev/null 2>&1
kill_hard
wait $server
finish
rm -rf "$folder"
"#;

/// A server.
pub(crate) struct Broker {
    pub(crate) port: u16,
    /// Where its data are, until this process ends.
    pub(crate) folder: PathBuf,
    ready: &'static str,
    orders: ChildStdin,
    log: Mutex<Receiver<String>>,
}

/// What makes a server of a kind.
pub(crate) struct Kind<'a> {
    /// Begins the names of folders.
    pub(crate) name: &'a str,
    /// The functions that [`GUARD`] needs. They find the folder in `$folder`.
    pub(crate) script: String,
    /// What the log says once the server takes connections.
    pub(crate) ready: &'static str,
    /// Files in the folder.
    pub(crate) files: &'a [(&'a str, String)],
    /// Where it listens.
    pub(crate) port: u16,
}

impl Broker {
    /// Starts a server and waits until it takes connections.
    pub(crate) fn start(kind: &Kind<'_>) -> Self {
        let folder = folder(kind.name);
        let as_root = runs_as_root(&folder);
        for (name, content) in kind.files {
            fs::write(folder.join(name), content).unwrap();
        }
        let mut command = Command::new("sh");
        command
            .args(["-c", &format!("{BEGIN}{}{GUARD}", kind.script), "sh"])
            .arg(&folder)
            .current_dir(&folder)
            .env("HOME", &folder)
            // A key press that interrupts the tests leaves the shell to do its work.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        if as_root {
            chown(&folder);
            for (name, _) in kind.files {
                chown(&folder.join(name));
            }
            command.uid(NOBODY).gid(NOBODY);
        }
        let mut guard = command.spawn().unwrap();
        let orders = guard.stdin.take().unwrap();
        let lines = BufReader::new(guard.stdout.take().unwrap()).lines();
        let (sender, log) = mpsc::channel();
        // A full pipe would block the server.
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                sender.send(line).ok();
            }
            guard.wait()
        });
        let broker = Self {
            port: kind.port,
            folder,
            ready: kind.ready,
            orders,
            log: Mutex::new(log),
        };
        broker.wait_for(broker.ready);
        broker
    }

    /// Ends the server without a warning, as `kill -9` does.
    pub(crate) fn kill(&mut self) {
        writeln!(self.orders, "kill").unwrap();
        self.wait_for("guard: ended");
    }

    /// Ends the server as an operator does.
    pub(crate) fn stop(&mut self) {
        writeln!(self.orders, "stop").unwrap();
        self.wait_for("guard: ended");
    }

    /// Starts the server again, on its port and with its data.
    pub(crate) fn restart(&mut self) {
        writeln!(self.orders, "start").unwrap();
        self.wait_for(self.ready);
    }

    fn wait_for(&self, what: &str) {
        let log = self.log.lock().unwrap();
        let mut told = Vec::new();
        loop {
            match log.recv_timeout(GENEROUS) {
                Ok(line) if line.contains(what) => return,
                Ok(line) => told.push(line),
                Err(error) => panic!("'{what}' did not come: {error}\n{}", told.join("\n")),
            }
        }
    }
}

/// A port that is free, out of the range from which connections get theirs.
pub(crate) fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Test binaries that run at once begin apart.
    let begin = u16::try_from(std::process::id() % 500).unwrap() * 20;
    (0..10_000)
        .map(|_| 20_000 + (begin + NEXT.fetch_add(1, Ordering::Relaxed)) % 10_000)
        .find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .unwrap()
}

/// A program, on the path or where Debian puts it.
pub(crate) fn program(name: &str, folders: &[&str], package: &str) -> PathBuf {
    let on_path =
        std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()).collect::<Vec<_>>();
    folders
        .iter()
        .map(PathBuf::from)
        .chain(on_path)
        .map(|folder| folder.join(name))
        .find(|path| path.is_file())
        .unwrap_or_else(|| {
            panic!("these tests need '{name}': install it ('apt-get install {package}')")
        })
}

fn folder(name: &str) -> PathBuf {
    let folder: TempDir = tempfile::Builder::new()
        .prefix(&format!("catalog-sync-{name}-"))
        .tempdir()
        .unwrap();
    // The shell removes it.
    folder.keep()
}

/// Who made the folder is who runs the tests.
fn runs_as_root(folder: &Path) -> bool {
    fs::metadata(folder).unwrap().uid() == 0
}

fn chown(path: &Path) {
    std::os::unix::fs::chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
}
