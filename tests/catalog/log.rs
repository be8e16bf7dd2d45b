//! Each contradiction, found by its name.

use chrono::{DateTime, TimeDelta};

use catalog_sync::{
    catalog::{log::*, *},
    clock::Instant,
};
use uuid::Uuid;

fn day(day: i64) -> Instant {
    DateTime::from_timestamp(1_800_000_000 + 86_400 * day, 0).unwrap()
}

fn run(number: u128) -> Uuid {
    Uuid::from_u128(number)
}

fn coins(name: &str) -> Entry {
    Entry::new(Kind::InAppPurchase, "1").with("name", name)
}

fn group() -> Entry {
    Entry::new(Kind::SubscriptionGroup, "7").with("referenceName", "Pro")
}

fn monthly(group: &str) -> Entry {
    Entry::new(Kind::Subscription, "8").within(group)
}

fn added(after: Entry) -> Change {
    Change::Added { after }
}

fn updated(before: Entry, after: Entry) -> Change {
    Change::Updated { before, after }
}

fn removed(before: Entry) -> Change {
    Change::Removed { before }
}

fn restored(before: Entry, after: Entry) -> Change {
    Change::Restored { before, after }
}

/// Revisions from 1 on, one a day, each with these changes.
fn log<const N: usize>(revisions: [Vec<Change>; N]) -> Vec<Line> {
    let mut lines = Vec::new();
    for (revision, changes) in (1..).zip(revisions) {
        for change in changes {
            lines.push(Line {
                seq: i64::try_from(lines.len()).unwrap() + 1,
                revision,
                run_id: run(u128::try_from(revision).unwrap()),
                at: day(revision),
                change: Ok(change),
            });
        }
    }
    lines
}

/// Three revisions with every kind of change, and what they lead to.
fn sound() -> (Vec<Line>, Catalog) {
    let lines = log([
        vec![added(coins("a")), added(group()), added(monthly("7"))],
        vec![updated(coins("a"), coins("b")), removed(monthly("7"))],
        vec![restored(monthly("7"), monthly("7")), removed(coins("b"))],
    ]);
    let catalog = catalog([group(), monthly("7")], [coins("b")]);
    (lines, catalog)
}

fn catalog<const P: usize, const R: usize>(present: [Entry; P], removed: [Entry; R]) -> Catalog {
    let mut catalog = Catalog::default();
    for entry in present {
        catalog.present.insert(entry.key.clone(), entry);
    }
    for entry in removed {
        catalog.removed.insert(entry.key.clone(), entry);
    }
    catalog
}

fn verify(lines: Vec<Line>, since: Option<Instant>, stored: &Catalog, revision: i64) -> Proof {
    let mut verification = Verification::new(since);
    for line in lines {
        verification.take(line);
    }
    verification.finish(stored, revision, day(10))
}

/// What is told of the sound log after this was done to it.
fn told(tamper: impl FnOnce(&mut Vec<Line>, &mut Catalog)) -> Vec<String> {
    let (mut lines, mut stored) = sound();
    tamper(&mut lines, &mut stored);
    sentences(&verify(lines, None, &stored, 3))
}

fn sentences(proof: &Proof) -> Vec<String> {
    proof
        .contradictions
        .iter()
        .map(ToString::to_string)
        .collect()
}

#[test]
fn a_sound_log_gives_its_catalog() {
    let (lines, stored) = sound();
    let changes = lines
        .iter()
        .map(|line| line.change.as_ref().unwrap().clone());
    assert_eq!(replay(changes), stored);
    let proof = verify(lines, None, &stored, 3);
    assert_eq!(sentences(&proof), [""; 0]);
    assert!(proof.holds());
    assert_eq!((proof.changes, proof.revisions), (7, 3));
    assert_eq!((proof.present, proof.removed, proof.more), (2, 1, 0));

    let nothing = verify(vec![], None, &Catalog::default(), 0);
    assert!(nothing.holds());
}

#[test]
fn revisions_rise_by_one_with_each_run() {
    assert_eq!(
        told(|lines, _| lines.iter_mut().for_each(|line| line.revision += 1)),
        [
            "line 1: revision 2 comes after revision 0: what lies between is missing",
            "stored: the log ends with revision 4, the catalog has revision 3"
        ]
    );
    assert_eq!(
        told(|lines, _| lines.retain(|line| line.revision != 2)),
        [
            "line 6: revision 3 comes after revision 1: what lies between is missing",
            "line 6: subscription 8: it was restored, but was not removed",
            "line 7: in_app_purchase 1: what it is said to have been is not what it was: name"
        ]
    );
    assert_eq!(
        told(|lines, _| lines[4].revision = 1),
        [
            "line 5: revision 1 comes after revision 2",
            "line 5: revision 1 is of the same run as the revision before",
            "line 6: revision 3 comes after revision 1: what lies between is missing"
        ]
    );
    assert_eq!(
        told(|lines, _| {
            lines.truncate(5);
        })[0],
        "stored: the log ends with revision 2, the catalog has revision 3"
    );
}

#[test]
fn a_revision_is_of_one_run_and_changes_each_entry_once() {
    assert_eq!(
        told(|lines, _| lines[1].run_id = run(9)),
        ["line 2: revision 1 is of two runs"]
    );
    assert_eq!(
        told(|lines, _| lines[1].at = day(9)),
        ["line 2: revision 1 is of two instants"]
    );
    assert_eq!(
        told(|lines, _| lines[3].run_id = run(1)),
        [
            "line 4: revision 2 is of the same run as the revision before",
            "line 5: revision 2 is of two runs"
        ]
    );
    assert_eq!(
        told(|lines, _| {
            let Line {
                revision,
                run_id,
                at,
                ..
            } = lines[4];
            let change = Ok(updated(coins("b"), coins("b")));
            lines.insert(
                5,
                Line {
                    seq: 50,
                    revision,
                    run_id,
                    at,
                    change,
                },
            );
        }),
        ["line 50: in_app_purchase 1: it changed twice in revision 2"]
    );
}

#[test]
fn what_was_before_a_change_is_what_the_log_had() {
    assert_eq!(
        told(|lines, _| lines[3].change = Ok(updated(coins("x").with("state", "NEW"), coins("b")))),
        ["line 4: in_app_purchase 1: what it is said to have been is not what it was: name, state"]
    );
    assert_eq!(
        told(|lines, _| lines[4].change = Ok(removed(monthly("6"))))[0],
        "line 5: subscription 8: what it is said to have been is not what it was: parent"
    );
    assert_eq!(
        told(|lines, _| lines[5].change = Ok(restored(monthly("6"), monthly("7")))),
        ["line 6: subscription 8: what it is said to have been is not what it was: parent"]
    );
}

#[test]
fn a_change_fits_what_is_there() {
    assert_eq!(
        told(|lines, _| lines[3].change = Ok(added(coins("b")))),
        ["line 4: in_app_purchase 1: it was added, but was there"]
    );
    assert_eq!(
        told(|lines, _| lines[5].change = Ok(updated(monthly("7"), monthly("7")))),
        ["line 6: subscription 8: it was updated, but was not there"]
    );
    assert_eq!(
        told(|lines, _| {
            let Line {
                revision,
                run_id,
                at,
                ..
            } = lines[6];
            let change = Ok(removed(Entry::new(Kind::GracePeriod, "9")));
            lines.push(Line {
                seq: 8,
                revision,
                run_id,
                at,
                change,
            });
        })[0],
        "line 8: grace_period 9: it was removed, but was not there"
    );
    assert_eq!(
        told(|lines, _| lines[3].change = Ok(restored(coins("a"), coins("b")))),
        ["line 4: in_app_purchase 1: it was restored, but was not removed"]
    );
    assert_eq!(
        told(|lines, _| lines[5].change = Ok(added(monthly("7")))),
        [
            "line 6: subscription 8: it was added and not restored, but was removed as lately as 2027-01-17 08:00:00 UTC"
        ]
    );
}

#[test]
fn a_line_that_tells_no_change_is_told() {
    let sides = NotAChange::Sides {
        op: Op::Removed,
        before: true,
        after: true,
    };
    assert_eq!(
        told(|lines, _| lines[6].change = Err(sides)),
        [
            "line 7: the line tells no change: it has both sides, which no removed change has",
            "stored: in_app_purchase 1: the log has it as present, the catalog as removed"
        ]
    );
}

#[test]
fn the_catalog_has_what_the_log_has() {
    type Tamper = fn(&mut Catalog);
    let cases: [(Tamper, &str); 8] = [
        (
            |stored| drop(stored.present.remove(&group().key)),
            "subscription_group 7: the log has it, the catalog does not",
        ),
        (
            |stored| {
                let stranger = Entry::new(Kind::GracePeriod, "9");
                stored.present.insert(stranger.key.clone(), stranger);
            },
            "grace_period 9: the catalog has it, the log does not",
        ),
        (
            |stored| {
                let stranger = Entry::new(Kind::GracePeriod, "9");
                stored.removed.insert(stranger.key.clone(), stranger);
            },
            "grace_period 9: the catalog has it, the log does not",
        ),
        (
            |stored| {
                stored.present.append(&mut stored.removed);
            },
            "in_app_purchase 1: the log has it as removed, the catalog as present",
        ),
        (
            |stored| {
                let gone = stored.present.remove(&group().key).unwrap();
                stored.removed.insert(gone.key.clone(), gone);
            },
            "subscription_group 7: the log has it as present, the catalog as removed",
        ),
        (
            |stored| stored.present.get_mut(&monthly("7").key).unwrap().parent = None,
            "subscription 8: the catalog has it otherwise than the log: parent",
        ),
        (
            |stored| {
                *stored.removed.get_mut(&coins("b").key).unwrap() = coins("c");
            },
            "in_app_purchase 1: the catalog has it otherwise than the log: name",
        ),
        (
            |stored| stored.removed.clear(),
            "in_app_purchase 1: it was removed as lately as 2027-01-18 08:00:00 UTC, and is not stored any more",
        ),
    ];
    for (tamper, expected) in cases {
        let told = told(|_, stored| tamper(stored));
        assert_eq!(told, [format!("stored: {expected}")]);
    }
}

#[test]
fn what_was_removed_long_ago_may_be_forgotten_and_added_anew() {
    let (lines, mut stored) = sound();
    stored.removed.clear();
    let proof = |now| {
        let mut verification = Verification::new(None);
        let (lines, _) = sound();
        for line in lines {
            verification.take(line);
        }
        verification.finish(&stored, 3, now).holds()
    };
    let removed_at = lines[6].at;
    assert!(proof(removed_at + REMOVED_KEPT));
    assert!(!proof(
        removed_at + REMOVED_KEPT - TimeDelta::milliseconds(1)
    ));

    let (mut lines, mut stored) = sound();
    stored.present.append(&mut stored.removed);
    lines.push(Line {
        seq: 8,
        revision: 4,
        run_id: run(4),
        at: removed_at + REMOVED_KEPT,
        change: Ok(added(coins("b"))),
    });
    assert!(verify(lines, None, &stored, 4).holds());
}

/// As retention leaves the sound log: of what is from before the third day, each entry's latest change alone.
fn thinned() -> Vec<Line> {
    let (mut lines, _) = sound();
    lines.drain(..1);
    lines.remove(1);
    assert_eq!(
        lines.iter().map(|line| line.seq).collect::<Vec<_>>(),
        [2, 4, 5, 6, 7]
    );
    lines
}

#[test]
fn before_the_instant_from_which_the_log_is_whole_the_first_change_of_a_key_is_taken_as_it_is() {
    let (_, stored) = sound();
    let proof = verify(thinned(), Some(day(3)), &stored, 3);
    assert_eq!(sentences(&proof), [""; 0]);
    assert_eq!(proof.log_since, Some(day(3)));

    let mut skipping = thinned();
    for line in &mut skipping {
        line.revision += 40;
    }
    assert!(verify(skipping, Some(day(3)), &stored, 43).holds());

    assert_eq!(
        sentences(&verify(thinned(), None, &stored, 3)),
        [
            "line 4: in_app_purchase 1: it was updated, but was not there",
            "line 5: subscription 8: it was removed, but was not there",
        ]
    );
}

#[test]
fn from_that_instant_on_nothing_is_missing() {
    let (_, stored) = sound();
    let mut skipping = thinned();
    for line in &mut skipping[3..] {
        line.revision += 1;
    }
    assert_eq!(
        sentences(&verify(skipping, Some(day(3)), &stored, 4)),
        ["line 6: revision 4 comes after revision 2: what lies between is missing"]
    );
    let mut lacking = thinned();
    lacking.remove(1);
    assert_eq!(
        sentences(&verify(lacking, Some(day(3)), &stored, 3)),
        ["line 7: in_app_purchase 1: it was removed, but was not there"]
    );
    let mut second = thinned();
    second[3].change = Ok(restored(monthly("6"), monthly("7")));
    assert_eq!(
        sentences(&verify(second, Some(day(3)), &stored, 3)),
        ["line 6: subscription 8: what it is said to have been is not what it was: parent"]
    );
}

#[test]
fn twenty_contradictions_are_told_and_the_others_counted() {
    let mut lines = Vec::new();
    for seq in 1..=25 {
        lines.push(Line {
            seq,
            revision: 2 * seq,
            run_id: run(u128::try_from(seq).unwrap()),
            at: day(seq),
            change: Ok(if seq == 1 {
                added(coins("a"))
            } else {
                updated(coins("a"), coins("a"))
            }),
        });
    }
    let proof = verify(lines, None, &catalog([coins("a")], []), 50);
    assert_eq!((proof.contradictions.len(), proof.more), (20, 5));
    assert!(!proof.holds());
}

#[test]
fn what_retention_left_of_a_key_is_still_held_to_what_came_before() {
    let (mut lines, stored) = sound();
    lines[3].change = Ok(updated(coins("x"), coins("b")));
    assert_eq!(
        sentences(&verify(lines, Some(day(9)), &stored, 3)),
        ["line 4: in_app_purchase 1: what it is said to have been is not what it was: name"]
    );
}
