//! `docs/schema.md` says what there is.

use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection, SqliteConnection};

use super::{
    Fresh, fresh_postgres, fresh_sqlite,
    sample::{add, coins, grace_period, group, subscription, sync},
};

const SCHEMA: &str = include_str!("../../../docs/schema.md");

const VIEWS: [&str; 14] = [
    "products",
    "subscription_groups",
    "grace_periods",
    "grace_period_history",
    "catalog_changes",
    "sync_runs",
    "holds",
    "project_status",
    "master_keys",
    "unforeseen_values",
    "pending_syncs",
    "workers",
    "sync_requests",
    "refused_requests",
];

/// Those of them that are views, and not doors for the host, by name.
fn documented_views() -> Vec<&'static str> {
    let mut views = VIEWS.to_vec();
    views.retain(|view| !view.ends_with("_requests"));
    views.sort_unstable();
    views
}

/// The view's columns in the order of the documentation, with their types.
fn documented(view: &str) -> Vec<(String, String)> {
    let section = SCHEMA
        .split("\n## ")
        .find_map(|section| section.strip_prefix(&format!("{view}\n")))
        .unwrap_or_else(|| panic!("{view} has no section"));
    section
        .lines()
        .filter_map(|line| {
            let mut cells = line.strip_prefix("| `")?.split('|');
            let name = cells.next()?.trim().trim_end_matches('`');
            let kind = cells.next()?.trim().trim_end_matches(", null");
            Some((name.to_owned(), kind.to_owned()))
        })
        .collect()
}

async fn filled<P>(fresh: &Fresh<P>) {
    let acme = add(&*fresh.store, "acme").await;
    let entries = [
        coins("1"),
        group("7", "Pro"),
        subscription("8", "7"),
        grace_period(),
    ];
    sync(&*fresh.store, &acme, 0, entries).await;
}

#[tokio::test]
async fn sqlite_has_the_documented_columns() {
    let fresh = fresh_sqlite().await;
    let mut raw = SqliteConnection::connect(&fresh.url).await.unwrap();
    for view in VIEWS {
        let columns: Vec<String> =
            sqlx::query_scalar("select name from pragma_table_info($1) order by cid")
                .bind(view)
                .fetch_all(&mut raw)
                .await
                .unwrap();
        let documented: Vec<String> = documented(view).into_iter().map(|(name, _)| name).collect();
        assert_eq!(columns, documented, "{view}");
    }
    let views: Vec<String> =
        sqlx::query_scalar("select name from sqlite_schema where type = 'view' order by name")
            .fetch_all(&mut raw)
            .await
            .unwrap();
    assert_eq!(views, documented_views());
}

#[tokio::test]
async fn sqlite_gives_the_documented_types() {
    let fresh = fresh_sqlite().await;
    filled(&fresh).await;
    let mut raw = SqliteConnection::connect(&fresh.url).await.unwrap();
    for view in VIEWS {
        for (column, kind) in documented(view) {
            let select = format!(
                "select distinct typeof(\"{column}\") from {view} where \"{column}\" is not null"
            );
            let types: Vec<String> = sqlx::query_scalar(AssertSqlSafe(select))
                .fetch_all(&mut raw)
                .await
                .unwrap();
            let expected = match kind.as_str() {
                "integer" | "boolean" => "integer",
                _ => "text",
            };
            assert!(
                types.iter().all(|one| one == expected),
                "{view}.{column}: {types:?}"
            );
            if kind == "instant" {
                let odd = format!(
                    "select count(*) from {view} where strftime('%Y-%m-%dT%H:%M:%fZ', \"{column}\") <> \"{column}\""
                );
                let odd: i64 = sqlx::query_scalar(AssertSqlSafe(odd))
                    .fetch_one(&mut raw)
                    .await
                    .unwrap();
                assert_eq!(odd, 0, "{view}.{column}");
            }
        }
    }
}

#[tokio::test]
async fn postgres_has_the_documented_columns() {
    let fresh = fresh_postgres().await;
    let mut raw = PgConnection::connect(&fresh.url).await.unwrap();
    for view in VIEWS {
        let columns: Vec<(String, String)> = sqlx::query_as(
            "select column_name::text, data_type::text from information_schema.columns
             where table_name = $1 order by ordinal_position",
        )
        .bind(view)
        .fetch_all(&mut raw)
        .await
        .unwrap();
        let documented: Vec<(String, String)> = documented(view)
            .into_iter()
            .map(|(name, kind)| {
                let kind = match kind.as_str() {
                    "integer" => "bigint",
                    "instant" => "timestamp with time zone",
                    "JSON" => "jsonb",
                    other => other,
                };
                (name, kind.to_owned())
            })
            .collect();
        assert_eq!(columns, documented, "{view}");
    }
    let views: Vec<String> = sqlx::query_scalar(
        "select relname::text from pg_class where relkind = 'v' and relnamespace = 'public'::regnamespace order by relname",
    )
    .fetch_all(&mut raw)
    .await
    .unwrap();
    assert_eq!(views, documented_views());
}

/// What a project sells.
fn shelf() -> &'static str {
    let is_it = |query: &&str| query.contains("from products");
    queries().into_iter().find(is_it).unwrap()
}

fn queries() -> Vec<&'static str> {
    let fenced = SCHEMA.split("```sql\n").skip(1);
    let queries: Vec<_> = fenced
        .map(|rest| rest.split("```").next().unwrap())
        .collect();
    assert!(queries.len() >= 4);
    queries
}

#[tokio::test]
async fn sqlite_answers_the_documented_queries() {
    let fresh = fresh_sqlite().await;
    filled(&fresh).await;
    let mut raw = SqliteConnection::connect(&fresh.url).await.unwrap();
    for query in queries() {
        raw.fetch_all(query).await.unwrap();
    }
    assert_eq!(raw.fetch_all(shelf()).await.unwrap().len(), 2);
}

#[tokio::test]
async fn postgres_answers_the_documented_queries() {
    let fresh = fresh_postgres().await;
    filled(&fresh).await;
    let mut raw = PgConnection::connect(&fresh.url).await.unwrap();
    for query in queries() {
        raw.fetch_all(query).await.unwrap();
    }
    assert_eq!(raw.fetch_all(shelf()).await.unwrap().len(), 2);
}
