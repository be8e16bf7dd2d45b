//! A Postgres server for the tests: one for each test binary, a database for each test.
//!
//! The server listens on a unix socket in a folder of its own. It is the child of a shell that reads from a pipe whose other
//! end this process holds: when this process ends, however it ends, the pipe closes, and the shell stops the server and
//! removes the folder. Nothing has to run at exit, and nothing is left behind by a test that fails or is killed.

use std::{
    env,
    io::{BufRead as _, BufReader},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        LazyLock,
        atomic::{AtomicU32, Ordering},
    },
};

use catalog_sync::store;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use tokio::sync::OnceCell;

/// The user and group as whom the server runs if the tests run as root, which Postgres refuses.
const NOBODY: u32 = 65534;

/// Once the pipe closes, `read` ends, and so does the server. It has a process group of its own, so that a key press that
/// interrupts the tests leaves the shell to do its work.
const GUARD: &str = r#"
"$0" -D "$1/data" -k "$1" -c listen_addresses= -c max_connections=200 -c shared_buffers=32MB \
     -c fsync=off -c synchronous_commit=off -c full_page_writes=off 2>&1 &
server=$!
read -r _
kill -QUIT $server
wait $server
rm -rf "$1"
"#;

/// A database that nothing else uses.
pub(crate) struct Database {
    url: String,
}

impl Database {
    pub(crate) fn url(&self) -> &str {
        &self.url
    }
}

/// A new database with the newest schema.
pub(crate) async fn database() -> Database {
    static TEMPLATE: OnceCell<()> = OnceCell::const_new();
    TEMPLATE
        .get_or_init(|| async {
            let template = create("template_catalog", "template0").await;
            let store = store::open(template.url(), &store::Options::default())
                .await
                .unwrap();
            store.migrate().await.unwrap();
        })
        .await;
    create(&unused_name(), "template_catalog").await
}

/// A new database with nothing in it.
pub(crate) async fn empty_database() -> Database {
    create(&unused_name(), "template0").await
}

/// A server of one's own, which a test may kill, and the URL of its database.
#[cfg(feature = "simulator")]
pub(crate) fn own() -> (crate::broker::Broker, String) {
    let port = crate::broker::free_port();
    let script = format!(
        r#"
[ -d "$folder/data" ] || "{}" --username=postgres --auth=trust --encoding=UTF8 --locale=C --no-sync -D "$folder/data" >/dev/null
start() {{
  "{}" -D "$folder/data" -k "$folder" -p {port} -c listen_addresses=127.0.0.1 -c shared_buffers=32MB -c fsync=off &
  server=$!
}}
kill_hard() {{ kill -9 $server $(pgrep -P $server); }}
stop_gently() {{ kill -INT $server; }}
finish() {{ :; }}
"#,
        program("initdb").display(),
        program("postgres").display()
    );
    let broker = crate::broker::Broker::start(&crate::broker::Kind {
        name: "own-pg",
        script,
        ready: "database system is ready to accept connections",
        files: &[],
        port,
    });
    (
        broker,
        format!("postgres://postgres@127.0.0.1:{port}/postgres"),
    )
}

fn unused_name() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    format!("test_{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

async fn create(name: &str, template: &str) -> Database {
    let mut server = PgConnection::connect(&url("postgres")).await.unwrap();
    // Names are ours. The server waits for connections to the template to go.
    let statement = format!("create database {name} template {template}");
    sqlx::query(AssertSqlSafe(statement))
        .execute(&mut server)
        .await
        .unwrap();
    server.close().await.unwrap();
    Database { url: url(name) }
}

fn url(database: &str) -> String {
    static SERVER: LazyLock<PathBuf> = LazyLock::new(start);
    format!(
        "postgres://postgres@localhost/{database}?host={}",
        SERVER.display()
    )
}

/// Starts the server and gives its folder.
fn start() -> PathBuf {
    let folder = tempfile::Builder::new()
        .prefix("catalog-sync-pg-")
        .tempdir()
        .unwrap()
        .keep();
    let as_root = runs_as_root(&folder);
    if as_root {
        std::os::unix::fs::chown(&folder, Some(NOBODY), Some(NOBODY)).unwrap();
    }
    let ordinary = |mut command: Command| {
        if as_root {
            command.uid(NOBODY).gid(NOBODY);
        }
        command.current_dir(&folder);
        command
    };

    let made = ordinary(Command::new(program("initdb")))
        .args([
            "--username=postgres",
            "--auth=trust",
            "--encoding=UTF8",
            "--locale=C",
            "--no-sync",
        ])
        .arg("--pgdata")
        .arg(folder.join("data"))
        .output()
        .unwrap();
    assert!(made.status.success(), "initdb failed: {made:?}");

    let mut guard = ordinary(Command::new("sh"))
        .args(["-c", GUARD])
        .arg(program("postgres"))
        .arg(&folder)
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    // Never dropped, so that it closes when this process ends and not before.
    std::mem::forget(guard.stdin.take());

    let mut log = BufReader::new(guard.stdout.take().unwrap()).lines();
    let mut told = String::new();
    loop {
        let line = log
            .next()
            .unwrap_or_else(|| panic!("Postgres did not start:\n{told}"))
            .unwrap();
        if line.contains("database system is ready to accept connections") {
            break;
        }
        told.push_str(&line);
        told.push('\n');
    }
    // A full pipe would block the server.
    std::thread::spawn(move || {
        log.for_each(drop);
        guard.wait()
    });
    folder
}

/// Who made the folder is who runs the tests.
fn runs_as_root(folder: &Path) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    std::fs::metadata(folder).unwrap().uid() == 0
}

/// A program of the server, on the path or where Debian puts it; the newest version there is.
pub(crate) fn program(name: &str) -> PathBuf {
    let on_path = env::split_paths(&env::var_os("PATH").unwrap_or_default()).collect::<Vec<_>>();
    let mut versions: Vec<PathBuf> = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .map(|version| version.path())
        .collect();
    versions.sort_by_key(|path| {
        path.file_name()
            .and_then(|version| version.to_str()?.parse::<u32>().ok())
    });
    let packaged = versions
        .into_iter()
        .rev()
        .map(|version| version.join("bin"));
    on_path
        .into_iter()
        .chain(packaged)
        .map(|folder| folder.join(name))
        .find(|path| path.is_file())
        .unwrap_or_else(|| {
            panic!(
                "these tests need a Postgres server, and '{name}' is neither on the path nor under /usr/lib/postgresql: \
                 install it ('apt-get install postgresql', 'brew install postgresql')"
            )
        })
}
