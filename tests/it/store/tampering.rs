//! What somebody did to the tables by hand.

use catalog_sync::store::{Store, verify};

use super::{
    past::now,
    raw::Raw,
    sample::{add, at, coins, group, subscription, sync},
};

/// What a verification says after this statement.
async fn told(store: &dyn Store, raw: &mut Raw, statement: &str) -> Vec<String> {
    raw.run(statement).await;
    let acme = super::sample::id("acme");
    let proof = verify(store, &acme, at(9)).await.unwrap();
    let sentences = proof.contradictions.iter().map(ToString::to_string);
    sentences.collect()
}

/// Three revisions of six lines, whose numbers are 1 to 6.
async fn prepare(store: &dyn Store) {
    let acme = add(store, "acme").await;
    let (pro, monthly) = (group("7", "Pro"), subscription("8", "7"));
    sync(store, &acme, 0, [coins("1"), pro.clone(), monthly.clone()]).await;
    let dearer = coins("1").with("name", "Dearer");
    sync(store, &acme, 1, [dearer.clone(), pro.clone()]).await;
    sync(store, &acme, 2, [dearer, pro, monthly]).await;
    assert!(verify(store, &acme, at(9)).await.unwrap().holds());
}

pub(crate) async fn a_log_that_was_tampered_with_is_found(store: &dyn Store, raw: &mut Raw) {
    prepare(store).await;
    let cases = [
        (
            "update changes set after = '{\"attributes\": {\"name\": \"x\"}}' where seq = 4",
            "stored: in_app_purchase 1: the catalog has it otherwise than the log: \
             familySharable, inAppPurchaseType, name, productId, state",
        ),
        (
            "update changes set before = null where seq = 5",
            "line 5: the line tells no change: it has neither side, which no removed change has",
        ),
        (
            "update changes set op = 'updated' where seq = 6",
            "line 6: subscription 8: it was updated, but was not there",
        ),
        (
            "update changes set op = 'lost' where seq = 6",
            "line 6: the line tells no change: 'lost' is not a change: use added, updated, removed or restored",
        ),
        (
            "update changes set revision = 5 where seq = 6",
            "line 6: revision 5 comes after revision 2: what lies between is missing",
        ),
        (
            "delete from changes where seq = 6",
            "stored: the log ends with revision 2, the catalog has revision 3",
        ),
        (
            "delete from changes",
            "stored: the log ends with revision 0, the catalog has revision 3",
        ),
    ];
    for (statement, expected) in cases {
        raw.run("create table kept as select * from changes").await;
        let found = told(store, raw, statement).await;
        assert!(
            found.iter().any(|sentence| sentence == expected),
            "{statement}: {found:#?}"
        );
        raw.run("delete from changes").await;
        let insert = match raw {
            Raw::Sqlite(_) => "insert into changes select * from kept",
            Raw::Postgres(_) => "insert into changes overriding system value select * from kept",
        };
        raw.run(insert).await;
        raw.run("drop table kept").await;
        assert_eq!(told(store, raw, "select 1").await, [""; 0]);
    }
}

pub(crate) async fn a_catalog_that_was_tampered_with_is_found(store: &dyn Store, raw: &mut Raw) {
    prepare(store).await;
    let cases = [
        (
            "update entries set parent_id = '6' where store_id = '8'",
            "update entries set parent_id = '7' where store_id = '8'",
            "stored: subscription 8: the catalog has it otherwise than the log: parent",
        ),
        (
            "update entries set removed_at = updated_at where store_id = '8'",
            "update entries set removed_at = null where store_id = '8'",
            "stored: subscription 8: the log has it as present, the catalog as removed",
        ),
        (
            "update entries set store_id = '9' where store_id = '8'",
            "update entries set store_id = '8' where store_id = '9'",
            "stored: subscription 8: the log has it, the catalog does not",
        ),
        (
            "update project_state set revision = 4",
            "update project_state set revision = 3",
            "stored: the log ends with revision 3, the catalog has revision 4",
        ),
    ];
    for (tamper, mend, expected) in cases {
        let found = told(store, raw, tamper).await;
        assert_eq!(found[0], expected, "{found:#?}");
        assert_eq!(told(store, raw, mend).await, [""; 0]);
    }
}

pub(crate) async fn a_newer_kind_is_no_part_of_the_shelf(store: &dyn Store, raw: &mut Raw) {
    prepare(store).await;
    raw.run(
        "insert into changes (project_id, revision, run_id, at, kind, store_id, op, after)
         select project_id, revision, run_id, at, 'offer', '1', 'added', '{\"attributes\": {}}'
         from changes where seq = 6",
    )
    .await;
    let acme = super::sample::id("acme");
    let shelf = store.read_shelf_at(&acme, at(9)).await.unwrap();
    assert_eq!(shelf, now(store, &acme).await);
    let log = store.read_log(&acme, 6, 9).await.unwrap();
    let unknown = log[0].change().unwrap_err().to_string();
    assert!(unknown.starts_with("'offer' is not a kind"), "{unknown}");
}
