//! The questions of docs/events.md, asked of a night's log as it is.

use std::process::Command;

use super::page;
use crate::{
    daemon::fixture::{Daemon, app_id, house, teams},
    house::Backend,
};

/// The commands of the page, with the question before each.
fn questions(page: &str) -> Vec<(&str, &str)> {
    let mut asked = "";
    let mut questions = Vec::new();
    for (index, part) in page.split("```").enumerate() {
        if index % 2 == 0 {
            // Right above the block stands how it is run.
            let text = part.split("<!--").next().unwrap();
            asked = text.trim().rsplit("\n\n").next().unwrap();
        } else if let Some(command) = part.strip_prefix("sh\n") {
            questions.push((asked, command));
        }
    }
    questions
}

/// A night: three projects, one of which loses what it has and one whose key is revoked, and a broker that is not there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_question_of_the_page_gets_an_answer() {
    if Command::new("jq").arg("--version").output().is_err() {
        println!("skipped: there is no jq");
        return;
    }
    let house = house(teams(3), Backend::Sqlite).await;
    let broker = [("CATALOG_SYNC_NATS__URL", "nats://127.0.0.1:9")];
    let nats = if cfg!(feature = "nats") {
        &broker[..]
    } else {
        &[]
    };
    let mut daemon = Daemon::start(&house, nats).await;
    for _ in 1..=3 {
        daemon.event("sync.finished").await;
    }
    house.simulator.edit(|state| {
        state.app_mut(&app_id(2)).unwrap().in_app_purchases.clear();
        state.teams[2].keys[0].revoked = true;
    });
    house.run(&["resync", "p1", "--wait"]).await.expect(0);
    house.run(&["resync", "p2", "--wait"]).await.expect(2);
    house.run(&["resync", "p3", "--wait"]).await.expect(1);
    let log = daemon.stop().await;
    let log = log.replace("\"p1\"", "\"acme\"");
    house.write(
        "night.log",
        log.lines()
            .fold(String::new(), |all, line| all + line + "\n"),
    );

    let text = page::text();
    let questions = questions(&text);
    assert!(questions.len() >= 10, "{questions:?}");
    let mut answers = String::new();
    for (question, command) in questions {
        let output = Command::new("sh")
            .args(["-c", command])
            .current_dir(house.folder())
            .output()
            .unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(
            output.status.success() && said.is_empty(),
            "{question}: {said}"
        );
        let answer = String::from_utf8(output.stdout).unwrap();
        assert!(
            !answer.trim().is_empty()
                || (question == "What was down, and for how long?" && nats.is_empty()),
            "{question} {log}"
        );
        for part in [question, "\n", &answer, "\n"] {
            answers.push_str(part);
        }
    }
    println!("{answers}");
    let answer = |question: &str| {
        let (_, rest) = answers
            .split_once(question)
            .unwrap_or_else(|| panic!("{question}"));
        rest.split("\n\n").next().unwrap().to_owned()
    };
    let act = answer("What must somebody act on?");
    assert!(act.contains("removals.held\tp2"), "{act}");
    let stale = answer("`catalog-sync status` knows it.)");
    assert!(
        stale.contains("p3\tcomplete: 2") && !stale.contains("acme"),
        "{stale}"
    );
    let changed = answer("What changed, by project?");
    assert!(
        changed.contains("acme\tadded\t7\tupdated\t0\tremoved\t0"),
        "{changed}"
    );
    let waited = answer("How long did those wait who asked for a sync?");
    assert!(waited.contains("requests 6, median"), "{waited}");
}
