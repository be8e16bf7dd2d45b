//! The SQL of all pages, on both databases.

use std::path::Path;

use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection, SqliteConnection};

use super::{
    blocks::{Note, blocks, pages},
    stories::state,
};
use crate::house::{Backend, House};

/// Statements with where they stand.
fn statements(of_postgres: bool) -> Vec<(String, String)> {
    let mut statements = Vec::new();
    for page in pages() {
        for block in blocks(Path::new(&page)) {
            let is_wanted = match block.note {
                Note::None => true,
                Note::Postgres => of_postgres,
                _ => false,
            };
            if block.language == "sql" && is_wanted {
                let place = format!("{}:{}", page.display(), block.line);
                statements.extend(
                    block
                        .text
                        .split(';')
                        .map(str::trim)
                        .filter(|statement| !statement.is_empty())
                        .map(|statement| (place.clone(), statement.to_owned())),
                );
            }
        }
    }
    assert!(statements.len() > 15);
    statements
}

async fn house(backend: Backend) -> House {
    let house = House::new(state(), backend).await;
    let (issuer_id, key) = (
        "5a1e7c30-6b1f-4f0e-9d52-1f0c6a2b9e11",
        "AuthKey_ABC123DEFG.p8",
    );
    let add = [
        "project",
        "add",
        "acme",
        "--issuer-id",
        issuer_id,
        "--private-key",
        key,
    ];
    house.run(&add).await.expect(0);
    house.run(&["sync", "acme"]).await.expect(0);
    house
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_query_of_the_docs_runs_on_sqlite() {
    let house = house(Backend::Sqlite).await;
    let url = format!("sqlite:{}", house.path("catalog-sync.db").display());
    let mut database = SqliteConnection::connect(&url).await.unwrap();
    for (place, statement) in statements(false) {
        database
            .execute(AssertSqlSafe(statement.clone()))
            .await
            .unwrap_or_else(|error| panic!("{place}: {error}\n{statement}"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_query_of_the_docs_runs_on_postgres() {
    let house = house(Backend::Postgres).await;
    let mut database = PgConnection::connect(house.store_url()).await.unwrap();
    for (place, statement) in statements(true) {
        database
            .execute(AssertSqlSafe(statement.clone()))
            .await
            .unwrap_or_else(|error| panic!("{place}: {error}\n{statement}"));
    }
    // The role of integration.md reads what it was granted and inserts a request, and no more.
    for allowed in [
        "select count(*) from products",
        "insert into sync_requests (project_id) values ('acme')",
    ] {
        as_backend(&mut database, allowed).await.unwrap();
    }
    for refused in [
        "select count(*) from api_keys",
        "select count(*) from master_keys",
        "update entries set removed_at = now()",
        "delete from sync_requests",
    ] {
        let error = as_backend(&mut database, refused).await.unwrap_err();
        assert!(error.to_string().contains("permission denied"), "{error}");
    }
    database
        .execute("drop owned by backend; drop role backend")
        .await
        .unwrap();
}

async fn as_backend(database: &mut PgConnection, statement: &str) -> Result<(), sqlx::Error> {
    database.execute("set role backend").await?;
    let done = database.execute(AssertSqlSafe(statement.to_owned())).await;
    database.execute("reset role").await?;
    done.map(|_| ())
}
