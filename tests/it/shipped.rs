//! What is shipped beside the code works and tells the truth: README, docs. `deploy` is for the rest.

use std::{fs, path::Path, process::Command};

use catalog_sync::{diagnosis::Code, simulator::State};

use crate::house::{Backend, House};

fn shipped(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// The lines of the README's code block that has this line in it.
fn block_with(readme: &str, line: &str) -> Vec<String> {
    readme
        .split("```")
        .skip(1)
        .step_by(2)
        .find(|block| block.lines().any(|it| it == line))
        .unwrap_or_else(|| panic!("no block has the line {line:?}"))
        .lines()
        .skip(1)
        .map(str::to_owned)
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_five_lines_of_the_readme_work() {
    let house = House::bare(State::sample(), Backend::Sqlite).await;
    let mut codes = Vec::new();
    for line in block_with(&shipped("README.md"), "catalog-sync init") {
        let args: Vec<String> = line
            .split(' ')
            .skip(1)
            .map(|arg| match arg {
                "AuthKey_ABC123DEFG.p8" => house.key_file(),
                arg if arg.len() == 36 => house.issuer_id(),
                arg => arg.to_owned(),
            })
            .collect();
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        codes.push(house.run(&args).await.code);
    }
    assert_eq!(
        codes,
        [0, 0, 2, 0, 0],
        "init, project add, plan, sync, catalog"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_query_of_the_readme_runs() {
    let house = House::with_project(State::sample(), Backend::Sqlite).await;
    house.run(&["sync", "acme"]).await.expect(0);
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(house.path("catalog-sync.db"));
    let mut database = <sqlx::SqliteConnection as sqlx::Connection>::connect_with(&options)
        .await
        .unwrap();
    let block = block_with(
        &shipped("README.md"),
        "from products where project_id = 'acme' and removed_at is null;",
    );
    for query in block
        .join("\n")
        .split(';')
        .map(str::trim)
        .filter(|query| !query.is_empty())
    {
        let rows = sqlx::query(sqlx::AssertSqlSafe(query.to_owned()))
            .fetch_all(&mut database)
            .await
            .unwrap();
        assert!(!rows.is_empty(), "{query}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_command_of_the_readme_exists_and_none_is_forgotten() {
    let house = House::bare(State::sample(), Backend::Sqlite).await;
    let readme = shipped("README.md");
    let help = house.run(&["--help"]).await.expect(0).stdout;
    let commands = help
        .lines()
        .skip_while(|line| *line != "Commands:")
        .skip(1)
        .take_while(|line| !line.is_empty());
    for command in commands.filter_map(|line| {
        line.strip_prefix("  ")?
            .split(' ')
            .next()
            .filter(|it| !it.is_empty())
    }) {
        assert!(
            command == "help" || readme.contains(&format!("`{command}")),
            "README.md does not have `{command}`"
        );
    }
    for project in [
        "add", "list", "show", "verify", "set-key", "schedule", "guard", "pause", "resume",
        "remove",
    ] {
        assert!(
            readme.contains(&format!("`{project}`"))
                || readme.contains(&format!("`project {project}`"))
        );
        house.run(&["project", project, "--help"]).await.expect(0);
    }
}

#[test]
fn every_code_is_documented_as_it_is_explained() {
    let page = shipped("docs/errors.md");
    for code in Code::ALL {
        for part in [
            format!("## `{code}`\n\n{}", code.title()),
            format!("**What to do.** {}", code.advice()),
        ] {
            assert!(page.contains(&part), "docs/errors.md lacks: {part}");
        }
    }
    assert_eq!(page.matches("\n## `").count(), Code::ALL.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_demo_shows_the_main_job_and_leaves_nothing() {
    let house = House::bare(State::sample(), Backend::Sqlite).await;
    let temporary = tempfile::tempdir().unwrap();
    let here = temporary.path().to_str().unwrap();
    let shown = house
        .run_with(&["demo"], &[("TMPDIR", here)], "")
        .await
        .expect(0)
        .stdout;
    for part in [
        "1 app visible",
        "+ grace_period",
        "billing grace period: 16 days",
        "duration: \"SIXTEEN_DAYS\" -> \"TWENTY_EIGHT_DAYS\"",
        "lumen succeeded: 1 added, 4 updated, 1 removed (4 requests, 12 rows written, revision 2",
        "lumen succeeded: no changes (3 requests, 0 rows written, revision 2",
        "7 of 13 in-app purchases would go (53.9 %, limit 30 %)",
        "lumen held: no changes",
        "$ catalog-sync holds lumen",
        "$ catalog-sync approve lumen ",
        "lumen succeeded: 0 added, 0 updated, 7 removed",
        "verified: ",
    ] {
        assert!(
            shown.contains(part),
            "the demo does not show {part:?}:\n{shown}"
        );
    }
    assert_eq!(fs::read_dir(temporary.path()).unwrap().count(), 0);
    assert!(!house.path("catalog-sync.db").exists());
}

/// A licence, a source or a crate that `deny.toml` does not allow, and what is known to be vulnerable where the list of that is at
/// hand.
#[test]
fn the_dependencies_are_what_they_may_be() {
    let deny = |arguments: &[&str]| {
        Command::new("cargo")
            .args(["deny", "--offline"])
            .args(arguments)
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .output()
            .unwrap()
    };
    if !deny(&["--version"]).status.success() {
        println!("skipped: there is no cargo-deny ('cargo install cargo-deny --locked')");
        return;
    }
    let assert_clean = |checks: &[&str]| {
        let checked = deny(&[&["check"], checks].concat());
        let told = String::from_utf8_lossy(&checked.stderr);
        assert!(checked.status.success(), "{told}");
    };
    assert_clean(&["bans", "licenses", "sources"]);
    let home = std::env::var_os("CARGO_HOME").map_or_else(
        || Path::new(&std::env::var_os("HOME").unwrap_or_default()).join(".cargo"),
        Into::into,
    );
    let databases = ["advisory-dbs", "advisory-db"].map(|folder| home.join(folder));
    if databases.iter().any(|folder| folder.is_dir()) {
        assert_clean(&["advisories"]);
    } else {
        println!("skipped: advisories, as their list is not at hand ('cargo deny fetch' gets it)");
    }
}
