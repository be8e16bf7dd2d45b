//! A database that version 0.1.0 wrote, with plain SQL as that version did; those of the schemas since; and what a migration may do
//! from now on.

use catalog_sync::{
    catalog::Kind,
    run::{KeyHealth, Trigger},
    schedule::Schedule,
    store::{self, Options, Schema, Store},
};
use sqlx::{
    Connection as _, PgConnection, SqlSafeStr as _, SqliteConnection,
    migrate::{Migrate, Migration, MigrationType, Migrator},
};

use super::{
    raw::Raw,
    sample::{
        TTL, add_with_key, ask, at, coins, finish, history, id, key_of, names, pending, project,
        sync, take, take_one,
    },
};
use crate::postgres;

/// The text of each migration in both dialects, in order.
macro_rules! migrations {
    ($($name:literal)*) => {
        [$((
            $name,
            include_str!(concat!("../../../migrations/sqlite/", $name, ".sql")),
            include_str!(concat!("../../../migrations/postgres/", $name, ".sql")),
        )),*]
    };
}

const MIGRATIONS: [(&str, &str, &str); 6] = migrations!(
    "0001_catalog" "0002_daemon" "0003_removals" "0004_master_keys" "0005_workers" "0006_marks"
);

/// Applies those of the texts, the first as number 1.
async fn migrate_with(connection: &mut impl Migrate, texts: &[&'static str]) {
    let migrations = texts
        .iter()
        .zip(MIGRATIONS)
        .zip(1..)
        .map(|((text, (name, ..)), version)| {
            let name = name.split_once('_').unwrap().1;
            let text = text.into_sql_str();
            Migration::new(version, name.into(), MigrationType::Simple, text, false)
        })
        .collect();
    let mut migrator = Migrator::with_migrations(migrations);
    migrator.dangerous_set_table_name("catalog_sync_migrations");
    migrator.set_locking(false);
    migrator.run_direct(None, connection, false).await.unwrap();
}

/// A project with a product and a log, one that is paused and was never synced, and two that share a key.
fn rows(sealed: &str) -> String {
    let run_id = "01993b6c-1a2b-7c3d-8e4f-0123456789ab";
    format!(
        r#"
insert into projects (id, app_id, bundle_id, app_name, paused_at, created_at) values
    ('acme', '6446901002', 'com.example.acme', 'acme''s app', null, '2027-01-15T07:50:00.123Z'),
    ('idle', '6446901002', 'com.example.idle', 'idle''s app', '2027-01-15T07:55:00.123Z', '2027-01-15T07:50:00.123Z');
insert into api_keys (project_id, key_id, issuer_id, master_key_id, sealed) values
    ('acme', '2X9R4HXF34', '57246542-96fe-1a63-e053-0824d011072a', 'mk-1', {sealed}),
    ('idle', '2X9R4HXF34', '57246542-96fe-1a63-e053-0824d011072a', 'mk-1', {sealed});
insert into project_state (project_id, key_worked_at) values ('idle', '2027-01-15T07:50:00.123Z');
insert into project_state
    (project_id, epoch, revision, last_attempt_at, last_success_at, outcome, covered_at, key_worked_at)
values
    ('acme', 3, 1, '2027-01-15T07:52:00.123Z', '2027-01-15T07:52:00.123Z', 'succeeded',
     '{{"in_app_purchase": "2027-01-15T07:52:00.123Z"}}', '2027-01-15T07:52:00.123Z');
insert into entries (project_id, kind, store_id, product_id, attributes, first_seen_at, updated_at) values
    ('acme', 'in_app_purchase', '1', 'com.example.coins1',
     '{{"productId": "com.example.coins1", "name": "100 Coins", "inAppPurchaseType": "CONSUMABLE", "state": "APPROVED",
       "familySharable": false}}',
     '2027-01-15T07:52:00.123Z', '2027-01-15T07:52:00.123Z');
insert into changes (project_id, revision, run_id, at, kind, store_id, product_id, op, after) values
    ('acme', 1, '{run_id}', '2027-01-15T07:52:00.123Z', 'in_app_purchase', '1', 'com.example.coins1', 'added',
     '{{"attributes": {{"productId": "com.example.coins1", "name": "100 Coins"}}}}');
insert into runs
    (id, project_id, trigger, started_at, finished_at, duration_ms, outcome, epoch, revision, added, updated, removed,
     restored, held, requests, retries, throttled, bytes, budget_left, detail)
values
    ('{run_id}', 'acme', 'command', '2027-01-15T07:51:58.123Z', '2027-01-15T07:52:00.123Z', 2000, 'succeeded', 3, 1, 1, 0,
     0, 0, 0, 5, 0, 0, 12345, 3499,
     '{{"covered": ["in_app_purchase"], "listed": {{"in_app_purchase": 1}}, "failures": {{}}, "error": null, "counts": {{}},
       "hold": null, "resume_at": null}}');
"#
    )
}

async fn keeps_what_was_there_and_goes_on(url: &str) {
    let opened = store::open(url, &Options::default()).await.unwrap();
    let before = opened.migrate().await.unwrap();
    assert_eq!(
        before,
        Schema {
            applied: 1,
            known: 6
        }
    );
    let store: &dyn Store = &*opened;
    let (acme, idle) = (id("acme"), id("idle"));

    let mut paused = project("idle");
    paused.paused_at = Some(at(-5));
    assert_eq!(
        store.list_projects().await.unwrap(),
        [project("acme"), paused]
    );
    assert_eq!(
        store.load_key(&acme).await.unwrap(),
        key_of(&project("acme"))
    );
    assert_eq!(history(store, &acme).await.len(), 1);
    let catalog = store.load_catalog(&acme).await.unwrap();
    assert_eq!(catalog.present.len(), 1);
    let runs = store.read_runs(&acme, 9).await.unwrap();
    assert_eq!(runs.len(), 1);
    assert_eq!(runs[0].run.trigger, Trigger::Command);
    assert_eq!((&runs[0].worker, runs[0].run.slot_at), (&None, None));
    let status = store.read_status(&acme).await.unwrap();
    assert_eq!((status.revision, status.served), (1, 0));
    assert_eq!((&status.pending, status.set_aside_at), (&None, None));
    assert_eq!(status.covered_at, [(Kind::InAppPurchase, at(-8))].into(),);
    let state = store.load_state(&acme).await.unwrap();
    assert_eq!(state.key_health, KeyHealth::worked(at(-8)));
    assert_eq!(state.retries, 0);

    // Nothing was asked for; the schedule finds it.
    assert!(names(&take(store, 9, at(0)).await).is_empty());
    let hourly = Schedule::new("0 * * * *", "UTC", std::time::Duration::ZERO).unwrap();
    for (minute, asked) in [(0, 0), (60, 1)] {
        let issued = store.issue_slots(&hourly, at(minute), 9, at(minute)).await;
        assert_eq!(issued.unwrap().asked, asked);
    }
    let claim = take_one(store, 60).await;
    assert_eq!(claim.lease.epoch, 4);
    assert_eq!(claim.request.as_ref().unwrap().trigger, Trigger::Schedule);
    finish(store, &claim, 60).await;
    // An unchanged catalog is still that, and a changed one is written on top.
    assert_eq!(sync(store, &acme, 61, [coins("1")]).await.rows, 0);
    let committed = sync(store, &acme, 62, [coins("1"), coins("2")]).await;
    assert_eq!((committed.revision, committed.rows), (2, 2));

    store.resume(&idle, at(63)).await.unwrap();
    ask(store, &acme, at(63)).await;
    let first = take_one(store, 63).await; // They share a key.
    finish(store, &first, 63).await;
    finish(store, &take_one(store, 64).await, 64).await;
    assert_eq!(pending(store, &idle).await, None);
    add_with_key(store, "new", "NEW").await;
    store.acquire(&id("new"), TTL, at(64)).await.unwrap();
}

#[tokio::test]
async fn sqlite_of_version_0_1_0_is_kept_and_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}", folder.path().join("old.db").display());
    sqlite_of_schema(1, &url, folder.path()).await;
    let mut raw = Raw::connect(&url).await;
    raw.run(&rows("x'000102ff0027'")).await;
    keeps_what_was_there_and_goes_on(&url).await;
}

#[tokio::test]
async fn postgres_of_version_0_1_0_is_kept_and_goes_on() {
    let database = postgres::empty_database().await;
    postgres_of_schema(1, database.url()).await;
    let mut raw = Raw::connect(database.url()).await;
    raw.run(&rows(r"'\x000102ff0027'")).await;
    keeps_what_was_there_and_goes_on(database.url()).await;
}

async fn sqlite_of_schema(newest: usize, url: &str, folder: &std::path::Path) {
    let texts: Vec<&str> = MIGRATIONS[..newest].iter().map(|it| it.1).collect();
    let mut connection = SqliteConnection::connect(&format!("{url}?mode=rwc"))
        .await
        .unwrap();
    migrate_with(&mut connection, &texts).await;
    connection.close().await.unwrap();
    let owners_alone = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(folder.join("old.db"), owners_alone).unwrap();
}

async fn postgres_of_schema(newest: usize, url: &str) {
    let texts: Vec<&str> = MIGRATIONS[..newest].iter().map(|it| it.2).collect();
    let mut connection = PgConnection::connect(url).await.unwrap();
    migrate_with(&mut connection, &texts).await;
    connection.close().await.unwrap();
}

const REASONS: &str = r#"[{"rule": "everything", "kind": "in_app_purchase", "removed": 1}]"#;
const REMOVALS: &str = r#"[{"kind": "in_app_purchase", "store_id": "1"}]"#;

/// What a schema has that the one before it had not, or that a later one changes: in the second a request that waits, and a hold
/// in the project's state and in the run's record.
fn rows_of_2() -> String {
    let detail = r#"{"covered": [], "listed": {}, "failures": {}, "error": null, "counts": {}, "resume_at": null"#;
    format!(
        r#"
update project_state set asked = 2, served = 1, taken = 1, urgency = 0, request_reason = 'a person',
    requested_at = '2027-01-15T07:53:00.123Z', ready_at = '2027-01-15T07:53:00.123Z',
    hold = '{{"digest": "0123456789ab", "reasons": {REASONS}, "removals": {REMOVALS}}}'
where project_id = 'acme';
update runs set slot_at = '2027-01-15T07:00:00.000Z', worker = 'old:1',
    detail = '{detail}, "hold": {{"digest": "0123456789ab", "reasons": {REASONS}, "removals": {REMOVALS}}}}}';
"#
    )
}

/// A hold in its own table, a thing that was not listed, and limits of the project's own.
fn rows_of_3() -> String {
    format!(
        r#"
insert into removal_holds (project_id, digest, reason, reasons, removals, held, held_at) values
    ('acme', '0123456789ab', 'all would go', '{REASONS}', '{REMOVALS}', 1, '2027-01-15T07:52:00.123Z');
update entries set absence = '{{"since": "2027-01-15T07:52:00.123Z"}}';
update projects set guard = '{{"removed_max": 3}}' where id = 'acme';
"#
    )
}

/// A master key that is known, and one that was retired.
const ROWS_OF_4: &str = "
insert into master_key_checks (id, check_value, first_seen_at, retired_at) values
    ('mk-1', 'one', '2027-01-15T07:50:00.123Z', null),
    ('mk-0', 'none', '2027-01-15T07:40:00.123Z', '2027-01-15T07:50:00.123Z');
";

/// Fills a database of that schema, brings it up to date, and looks for all that was there.
async fn keeps_the_rows_of(schema: usize, url: &str, sealed: &str) {
    let mut raw = Raw::connect(url).await;
    raw.run(&rows(sealed)).await;
    let of_each = [rows_of_2(), rows_of_3(), ROWS_OF_4.to_owned()];
    match schema {
        2 => raw.run(&of_each[0]).await,
        3 => raw.run(&of_each[1]).await,
        _ => raw.run(&of_each[1..].concat()).await,
    }
    let store = store::open(url, &Options::default()).await.unwrap();
    let before = store.migrate().await.unwrap();
    assert_eq!(before.applied, i64::try_from(schema).unwrap());

    let acme = id("acme");
    let status = store.read_status(&acme).await.unwrap();
    let hold = status.hold.expect("the hold is lost");
    assert_eq!(
        (hold.digest.to_string().as_str(), hold.removals),
        ("0123456789ab", 1)
    );
    assert_eq!(store.load_catalog(&acme).await.unwrap().present.len(), 1);
    assert_eq!(
        store.load_key(&acme).await.unwrap(),
        key_of(&project("acme"))
    );
    assert_eq!(history(&*store, &acme).await.len(), 1);
    let runs = store.read_runs(&acme, 9).await.unwrap();
    let known = store.list_master_keys().await.unwrap();
    let checks: Vec<_> = known
        .iter()
        .map(|key| {
            (
                key.id.as_str(),
                key.check_value.as_deref(),
                key.api_keys,
                key.retired_at.is_some(),
            )
        })
        .collect();
    if schema == 2 {
        assert_eq!(status.pending.unwrap().reason.as_deref(), Some("a person"));
        assert_eq!(
            runs[0].run.hold.as_ref().unwrap().removals,
            1,
            "it was a list"
        );
        assert_eq!(runs[0].worker.as_deref(), Some("old:1"));
        let listed_with = store.load_state(&acme).await.unwrap().listed_with;
        assert!(
            !serde_json::to_string(&listed_with).unwrap().eq("{}"),
            "of which app it was listed is not known"
        );
    } else {
        assert_eq!(status.missing, 1);
        assert_eq!(status.project.guard.removed_max, Some(3));
    }
    if schema >= 4 {
        assert_eq!(
            checks,
            [
                ("mk-0", Some("none"), 0, true),
                ("mk-1", Some("one"), 2, false)
            ]
        );
    } else {
        assert_eq!(checks, [("mk-1", None, 2, false)]);
    }
    store.note_worker("0.1.0", at(0), at(0)).await.unwrap();
    assert_eq!(store.read_workers(at(0)).await.unwrap().len(), 1);
}

#[tokio::test]
async fn sqlite_of_each_schema_since_is_kept() {
    for schema in 2..MIGRATIONS.len() {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite:{}", folder.path().join("old.db").display());
        sqlite_of_schema(schema, &url, folder.path()).await;
        keeps_the_rows_of(schema, &url, "x'000102ff0027'").await;
    }
}

#[tokio::test]
async fn postgres_of_each_schema_since_is_kept() {
    for schema in 2..MIGRATIONS.len() {
        let database = postgres::empty_database().await;
        postgres_of_schema(schema, database.url()).await;
        keeps_the_rows_of(schema, database.url(), r"'\x000102ff0027'").await;
    }
}

/// What a statement of a migration does that a worker of the version before could not bear. SQLite replaces a view by dropping it,
/// so that may be done where the same view is made again by the next statement.
fn objection(statement: &str, next: Option<&str>) -> Option<String> {
    let words: Vec<&str> = statement.split_whitespace().collect();
    let refused = |why: &str| Some(format!("{why}: {}", words.join(" ")));
    match words.as_slice() {
        ["create", "table" | "view" | "index", ..]
        | ["create", "unique", "index", ..]
        | ["create", "or", "replace", "view", ..] => None,
        ["drop", "view", view] => {
            let again = next
                .is_some_and(|next| next.split_whitespace().take(3).eq(["create", "view", view]));
            if again {
                None
            } else {
                refused("it drops a view")
            }
        }
        ["alter", "table", _, "add", "column", _, column @ ..] => {
            let is_bare = column.windows(2).any(|pair| pair == ["not", "null"])
                && !column.contains(&"default");
            if is_bare {
                refused("the version before does not fill the column")
            } else {
                None
            }
        }
        _ => refused("it does more than add"),
    }
}

fn objections(text: &str) -> Vec<String> {
    let lines = text
        .lines()
        .map(|line| line.split_once("--").map_or(line, |it| it.0));
    let text = lines.collect::<Vec<_>>().join("\n").to_lowercase();
    let statements: Vec<&str> = text
        .split(';')
        .map(str::trim)
        .filter(|it| !it.is_empty())
        .collect();
    let following = statements.iter().skip(1).copied().map(Some).chain([None]);
    let pairs = statements.iter().zip(following);
    pairs
        .filter_map(|(statement, next)| objection(statement, next))
        .collect()
}

/// docs/upgrades.md promises it.
#[test]
fn migrations_from_5_on_only_add() {
    let folders = ["sqlite", "postgres"].map(|dialect| {
        std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("migrations")
            .join(dialect)
    });
    for folder in folders {
        let mut looked_at = 0;
        for file in std::fs::read_dir(folder).unwrap() {
            let path = file.unwrap().path();
            let number: u32 = path.file_name().unwrap().to_str().unwrap()[..4]
                .parse()
                .unwrap();
            if number >= 5 {
                looked_at += 1;
                let text = std::fs::read_to_string(&path).unwrap();
                assert_eq!(
                    objections(&text),
                    <[String; 0]>::default(),
                    "{}",
                    path.display()
                );
            }
        }
        assert!(looked_at > 0);
    }
}

#[test]
fn what_a_running_worker_could_not_bear_is_refused_in_a_migration() {
    for (text, refused) in [
        (
            "create table a (b text); -- it; is; new\ncreate unique index c on a (b);",
            0,
        ),
        ("create or replace view a as select 1", 0),
        ("drop view a; create view a as select 1", 0),
        ("drop view a; create view b as select 1", 1),
        ("alter table a add column b text", 0),
        ("alter table a add column b text not null default ''", 0),
        ("alter table a add column b text not null", 1),
        ("alter table a drop column b", 1),
        ("alter table a rename column b to c", 1),
        ("ALTER TABLE a ALTER COLUMN b TYPE bigint", 1),
        ("drop table a; drop index b", 2),
        ("update a set b = 1", 1),
        ("create trigger a before insert on b", 1),
    ] {
        assert_eq!(objections(text).len(), refused, "{text}");
    }
}
