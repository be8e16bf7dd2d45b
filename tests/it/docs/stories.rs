//! The commands of a page, run in order in one folder, as a reader would.

use std::{os::unix::fs::symlink, path::Path, process::Stdio};

use catalog_sync::simulator::{App, Key, Role, State, Team};
use tokio::process::Command;

use super::blocks::{Note, blocks};
use crate::{
    daemon::fixture::Daemon,
    house::{Backend, House},
};

/// The pages whose commands run. Before each of them but README, `init` was run and the project `acme` added and synced.
pub(super) const STORIES: [&str; 5] = [
    "README.md",
    "docs/integration.md",
    "docs/operations.md",
    "docs/simulator.md",
    "docs/upgrades.md",
];

/// The sample, and the team whose key the pages speak of.
pub(super) fn state() -> State {
    let app = App::new("6446901002", "com.example.acme", "Acme")
        .with_in_app_purchases(13)
        .with_groups(1, 2)
        .with_grace_period();
    let team = Team::new("Example", "5a1e7c30-6b1f-4f0e-9d52-1f0c6a2b9e11")
        .with_key(Key::new("ABC123DEFG", Role::Admin))
        .with_app(app);
    State::sample().with_team(team)
}

/// A house with the binary in `bin/`.
async fn house() -> House {
    let house = House::bare(state(), Backend::Sqlite).await;
    house.write(".curlrc", "fail\nsilent\nshow-error\n");
    std::fs::create_dir(house.path("bin")).unwrap();
    symlink(
        env!("CARGO_BIN_EXE_catalog-sync"),
        house.path("bin/catalog-sync"),
    )
    .unwrap();
    house
}

/// A shell in the house, which finds the binary.
fn shell(house: &House, script: &str) -> Command {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut command = Command::new("bash");
    command
        .args(["-eu", "-o", "pipefail", "-c", script])
        .current_dir(house.folder())
        .env_clear()
        .env(
            "PATH",
            format!("{}:{}", house.path("bin").display(), path.display()),
        )
        .env("HOME", house.folder())
        .env("SIM", house.simulator.base_url())
        .env(
            "CATALOG_SYNC_APP_STORE__BASE_URL",
            house.simulator.base_url(),
        )
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

async fn run(house: &House, script: &str, place: &str) {
    let output = shell(house, script).output().await.unwrap();
    assert!(
        output.status.success(),
        "{place}: {}\n{script}\n{}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

async fn tell(page: &str) {
    let house = house().await;
    if page != "README.md" {
        let first = "catalog-sync init
            catalog-sync project add acme --private-key AuthKey_ABC123DEFG.p8 \
                --issuer-id 5a1e7c30-6b1f-4f0e-9d52-1f0c6a2b9e11
            catalog-sync sync acme";
        run(&house, first, "before the page").await;
    }
    let mut daemons = Vec::new();
    for block in blocks(Path::new(page)) {
        let place = format!("{page}:{}", block.line);
        if !block.is_shell() {
            continue;
        }
        match block.note {
            Note::None => run(&house, &block.text, &place).await,
            Note::Exits(code, line) => {
                let expected = format!("code=0; {line} || code=$?; [ \"$code\" = {code} ]");
                run(&house, &block.text.replace(&line, &expected), &place).await;
            }
            Note::InTheBackground => {
                let mut daemon = Daemon::of(shell(&house, &format!("exec {}", block.text)));
                daemon.event("daemon.started").await;
                daemons.push(daemon);
            }
            Note::Postgres | Note::RunBy(_) | Note::NotRun => {}
        }
    }
    for daemon in daemons {
        daemon.stop().await;
    }
}

macro_rules! stories {
    ($($name:ident: $page:literal),+ $(,)?) => {
        $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            tell($page).await;
        })+

        #[test]
        fn each_page_has_its_story() {
            assert_eq!([$($page),+], STORIES);
        }
    };
}

stories! {
    the_commands_of_the_readme_run: "README.md",
    the_commands_of_integration_run: "docs/integration.md",
    the_commands_of_operations_run: "docs/operations.md",
    the_commands_of_the_simulator_run: "docs/simulator.md",
    the_commands_of_upgrades_run: "docs/upgrades.md",
}
