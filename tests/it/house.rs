//! The real binary in a folder of its own, against a simulator and a database of its own.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Stdio,
};

use catalog_sync::{
    credential::{self, Credential, Given},
    simulator::{Options, Simulator, State},
};
use serde_json::Value;
use tempfile::TempDir;
use tokio::{io::AsyncWriteExt as _, process::Command};

use crate::{events::page::hold, postgres};

/// Where a house keeps its catalogs.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Backend {
    Sqlite,
    Postgres,
}

/// Writes each case once and tests it on both databases.
macro_rules! on_both_stores {
    ($($case:ident),+ $(,)?) => {
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() { super::$case($crate::house::Backend::Sqlite).await; })+
        }
        mod postgres {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() { super::$case($crate::house::Backend::Postgres).await; })+
        }
    };
}
pub(crate) use on_both_stores;

/// A key of the simulator as its customer hands it over.
pub(crate) fn handed_over(state: &State, key_id: &str) -> Credential {
    let (team, key) = state.key(key_id).unwrap();
    credential::read(Given {
        key_id: Some(&key.key_id),
        issuer_id: Some(&team.issuer_id),
        private_key: Some(key.private_key.as_bytes()),
        file_name: None,
    })
    .unwrap()
}

/// A folder with the keys of a simulated team, a database, and the binary to be run in it.
pub(crate) struct House {
    pub(crate) simulator: Simulator,
    folder: TempDir,
    store_url: String,
    base_url: String,
    _postgres: Option<postgres::Database>,
}

/// What the binary answered.
pub(crate) struct Answer {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Answer {
    /// Standard output as JSON.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| {
            panic!("{error} in {:?}, beside {:?}", self.stdout, self.stderr)
        })
    }

    /// The same answer, once its exit code is as expected.
    #[track_caller]
    pub(crate) fn expect(self, code: i32) -> Self {
        assert_eq!(
            self.code, code,
            "stdout: {}\nstderr: {}",
            self.stdout, self.stderr
        );
        self
    }

    /// The events of the log.
    pub(crate) fn events(&self) -> Vec<Value> {
        self.stderr
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect()
    }
}

impl House {
    /// A house whose simulator serves this state; nothing has been run in it.
    pub(crate) async fn bare(state: State, backend: Backend) -> Self {
        Self::around(Simulator::start(state).await.unwrap(), backend).await
    }

    /// A bare house whose simulator speaks HTTPS, with its authority in `ca.pem`, and whose catalogs are in this database.
    pub(crate) async fn over_tls(state: State, store_url: Option<&str>) -> Self {
        let options = Options {
            https: true,
            ..Options::default()
        };
        let simulator = Simulator::start_with(state, options).await.unwrap();
        let mut house = Self::around(simulator, Backend::Sqlite).await;
        house.write("ca.pem", house.simulator.ca_pem().unwrap());
        if let Some(store_url) = store_url {
            store_url.clone_into(&mut house.store_url);
        }
        house
    }

    async fn around(simulator: Simulator, backend: Backend) -> Self {
        let folder = tempfile::tempdir().unwrap();
        simulator.state().write_keys(folder.path()).unwrap();
        let postgres = match backend {
            Backend::Sqlite => None,
            Backend::Postgres => Some(postgres::empty_database().await),
        };
        let store_url = postgres.as_ref().map_or_else(
            || "sqlite:catalog-sync.db".to_owned(),
            |database| database.url().to_owned(),
        );
        let base_url = simulator.base_url().to_owned();
        Self {
            simulator,
            folder,
            store_url,
            base_url,
            _postgres: postgres,
        }
    }

    /// A house whose catalogs are in this database.
    pub(crate) async fn at(state: State, store_url: &str) -> Self {
        let mut house = Self::bare(state, Backend::Sqlite).await;
        store_url.clone_into(&mut house.store_url);
        house.run(&["init"]).await.expect(0);
        house
    }

    /// A house in which `init` has been run.
    pub(crate) async fn new(state: State, backend: Backend) -> Self {
        let house = Self::bare(state, backend).await;
        house.run(&["init"]).await.expect(0);
        house
    }

    /// A house in which the first key's project has been added, under the name `acme`.
    pub(crate) async fn with_project(state: State, backend: Backend) -> Self {
        let house = Self::new(state, backend).await;
        house.add("acme").await.expect(0);
        house
    }

    /// Where the catalogs are.
    pub(crate) fn store_url(&self) -> &str {
        &self.store_url
    }

    /// The folder in which the binary is run.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Sends the binary to another App Store Connect.
    pub(crate) fn point_to(&mut self, base_url: &str) {
        base_url.clone_into(&mut self.base_url);
    }

    pub(crate) fn issuer_id(&self) -> String {
        self.simulator.state().teams[0].issuer_id.clone()
    }

    /// The file name of the first key of the first team.
    pub(crate) fn key_file(&self) -> String {
        self.simulator.state().teams[0].keys[0].file_name()
    }

    /// `project add` with the first key.
    pub(crate) async fn add(&self, id: &str) -> Answer {
        let (issuer_id, key_file) = (self.issuer_id(), self.key_file());
        self.run(&[
            "project",
            "add",
            id,
            "--issuer-id",
            &issuer_id,
            "--private-key",
            &key_file,
        ])
        .await
    }

    /// Runs the binary.
    pub(crate) async fn run(&self, args: &[&str]) -> Answer {
        self.run_with(args, &[], "").await
    }

    /// Runs the binary and reads its answer as JSON.
    pub(crate) async fn json(&self, args: &[&str], code: i32) -> Value {
        let args: Vec<_> = args.iter().copied().chain(["--json"]).collect();
        self.run(&args).await.expect(code).json()
    }

    /// The error code with which a command fails.
    pub(crate) async fn error_code(&self, args: &[&str]) -> String {
        let answer = self.json(args, 1).await;
        answer["error"]["code"]
            .as_str()
            .unwrap_or_else(|| panic!("{answer}"))
            .to_owned()
    }

    /// The binary, to be run in the house.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_catalog-sync"));
        command
            .args(args)
            .current_dir(self.folder.path())
            .env_clear()
            .env("CATALOG_SYNC_STORE__URL", &self.store_url)
            .env("CATALOG_SYNC_APP_STORE__BASE_URL", &self.base_url)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }

    /// Runs the binary with these variables and this standard input.
    pub(crate) async fn run_with(
        &self,
        args: &[&str],
        variables: &[(&str, &str)],
        input: &str,
    ) -> Answer {
        let mut child = self
            .command(args)
            .envs(variables.iter().copied())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        // The binary may well be done before it has read anything.
        stdin.write_all(input.as_bytes()).await.ok();
        drop(stdin);
        let output = child.wait_with_output().await.unwrap();
        let answer = Answer {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        };
        answer.stderr.lines().for_each(hold);
        answer
    }

    /// Writes a file of the house, for its owner alone.
    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        fs::write(self.path(name), content).unwrap();
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(0o600)).unwrap();
    }
}
