//! What is found of each thing.

use chrono::TimeDelta;

use super::{super::State, *};

fn states(findings: &[Finding]) -> Vec<State> {
    findings.iter().map(|finding| finding.state).collect()
}

#[test]
fn a_clock_is_told_by_how_far_it_is_off() {
    for (ahead, state) in [
        (0, State::Ok),
        (30, State::Ok),
        (-30, State::Ok),
        (31, State::Warning),
        (-60, State::Warning),
        (61, State::Failed),
        (-3600, State::Failed),
    ] {
        let reached = Reached {
            status: 401,
            clock_ahead: Some(ahead),
        };
        assert_eq!(
            states(&of_apple(reached, "")),
            [State::Ok, state],
            "{ahead} s"
        );
    }
}

#[test]
fn only_a_401_is_an_answer_of_apple() {
    for (status, state) in [
        (401, State::Ok),
        (200, State::Failed),
        (404, State::Failed),
        (403, State::Warning),
        (429, State::Warning),
        (502, State::Failed),
    ] {
        let reached = Reached {
            status,
            clock_ahead: Some(0),
        };
        assert_eq!(states(&of_apple(reached, ""))[0], state, "{status}");
    }
}

#[test]
fn a_schema_of_another_version_is_told_with_the_way_out() {
    let file = Examined {
        server: "SQLite 3.53.0".to_owned(),
        clock: None,
        journal: Some("wal".to_owned()),
        disk: None,
        lacks: Vec::new(),
    };
    let server = Examined {
        journal: None,
        ..file.clone()
    };
    for (applied, examined, usable, state) in [
        (5, &file, true, State::Ok),
        (4, &file, false, State::Warning),
        (4, &server, false, State::Failed),
        (6, &file, false, State::Failed),
        (6, &server, false, State::Failed),
    ] {
        let schema = Schema { applied, known: 5 };
        let (is_usable, finding) = of_schema(schema, examined);
        assert_eq!((is_usable, finding.state), (usable, state), "{applied}");
    }
}

#[test]
fn little_room_another_journal_a_wrong_clock_and_lacking_rights_are_told() {
    let examined = |free_bytes| Examined {
        server: String::new(),
        clock: Some(clock::now() - TimeDelta::minutes(1)),
        journal: Some("delete".to_owned()),
        disk: Some(Disk {
            file_system: "ext4".to_owned(),
            free_bytes,
        }),
        lacks: vec!["insert on changes".to_owned()],
    };
    for (free_bytes, state) in [
        (99 << 20, State::Failed),
        (100 << 20, State::Warning),
        (1 << 30, State::Ok),
    ] {
        let found = states(&of_database(&examined(free_bytes)));
        assert_eq!(
            found,
            [State::Warning, State::Warning, state, State::Failed]
        );
    }
}

#[test]
fn versions_are_compared_by_their_numbers() {
    assert!(version("0.9.0") < version("0.10.0"));
    assert!(version("1.0.0") > version("0.99.99"));
    assert_eq!(version("0.1.0"), version("0.1"));
}
