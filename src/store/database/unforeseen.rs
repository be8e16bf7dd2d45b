//! What Apple sent that this version does not know: told once, whatever the number of projects and workers.

use serde_json::json;

use super::{Connection, Db, rows::Row, sql};
use crate::{
    catalog::Unforeseen,
    clock::Instant,
    project::ProjectId,
    store::{Error, Seen},
};

/// So much is kept of one run: a change of Apple's comes with few.
const MOST: usize = 50;

/// So long a part of a value is kept, in characters.
const LENGTH: usize = 200;

/// Keeps what is new, and gives it.
pub(super) async fn note(
    connection: &mut Connection,
    project: &ProjectId,
    seen: &[Seen],
    now: Instant,
) -> Result<Vec<Unforeseen>, Error> {
    if seen.is_empty() {
        return Ok(Vec::new());
    }
    let rows: Vec<_> = seen
        .iter()
        .take(MOST)
        .map(|Seen { what, store_id }| {
            let value = what.value.as_deref().unwrap_or_default();
            json!({
                "kind": what.kind,
                "attribute": cut(&what.attribute),
                "value": cut(value),
                "store_id": store_id,
            })
        })
        .collect();
    // In the order given, which is the same for all, so that two workers never wait for each other.
    let new = sqlx::query::<Db>(concat!(
        "insert into unforeseen (kind, attribute, value, first_seen_at, project_id, store_id)
         select value ->> 'kind', value ->> 'attribute', value ->> 'value', $2, $3, value ->> 'store_id'
         from ",
        sql::each!("$1"),
        " where true
         on conflict (kind, attribute, value) do nothing
         returning kind, attribute, value"
    ))
    .bind(sql::json(&rows))
    .bind(sql::instant(now))
    .bind(project.as_str())
    .fetch_all(connection)
    .await?;
    new.iter()
        .map(|row| {
            let row = Row::new(row, "unforeseen value", &["kind", "attribute"]);
            Ok(Unforeseen {
                kind: row.name("kind")?,
                attribute: row.text("attribute")?,
                value: Some(row.text("value")?).filter(|value| !value.is_empty()),
            })
        })
        .collect()
}

fn cut(text: &str) -> String {
    text.chars().take(LENGTH).collect()
}
