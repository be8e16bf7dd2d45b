//! Requests of the host, in the table that it inserts them into.

use std::collections::BTreeMap;

use super::{
    Connection, Db,
    asks::{Item, ask_for, on_demand},
    rows::Row,
    sql,
};
use crate::{
    clock::Instant,
    project::ProjectId,
    store::{Error, Inbox},
};

pub(super) async fn take(
    connection: &mut Connection,
    most: u32,
    now: Instant,
) -> Result<Inbox, Error> {
    let rows = sqlx::query::<Db>(sql::TAKE_INBOX)
        .bind(i64::from(most))
        .fetch_all(&mut *connection)
        .await?;
    let mut inbox = Inbox {
        taken: rows.len(),
        refused: Vec::new(),
    };
    let mut wanted: Vec<(String, Option<String>, Instant)> = Vec::new();
    for row in &rows {
        let row = Row::new(row, "sync_requests", &["project_id"]);
        // The host may have written there what is no instant; when it was taken is near enough. SQLite keeps texts that are none
        // (not UTF-8): a name of which that is true is no project's, and such a reason is none.
        let requested_at: Instant = row.value("requested_at").unwrap_or(now);
        wanted.push((
            row.text("project_id").unwrap_or_else(|_| "?".to_owned()),
            row.value("reason").unwrap_or(None),
            requested_at.min(now),
        ));
    }
    wanted.sort_by_key(|(.., requested_at)| *requested_at);
    let ids: Vec<(usize, ProjectId)> = wanted
        .iter()
        .enumerate()
        .filter_map(|(at, (text, ..))| Some((at, text.parse().ok()?)))
        .collect();
    let mut items: BTreeMap<&ProjectId, Item<'_>> = BTreeMap::new();
    for (at, id) in &ids {
        if let Some((_, reason, requested_at)) = wanted.get(*at) {
            let item = items
                .entry(id)
                .or_insert_with(|| on_demand(id, *requested_at));
            item.add_reason(reason.as_deref());
        }
    }
    let tickets = ask_for(connection, items.values(), now).await?;
    for (text, reason, requested_at) in &wanted {
        let why = match text.parse::<ProjectId>() {
            Ok(id) if tickets.contains_key(&id) => continue,
            Ok(id) => format!("there is no project '{id}'"),
            Err(error) => error.to_string(),
        };
        sqlx::query::<Db>(
            "insert into refused_requests (project_id, reason, requested_at, refused_at, why) values ($1, $2, $3, $4, $5)",
        )
        .bind(text)
        .bind(reason)
        .bind(sql::instant(*requested_at))
        .bind(sql::instant(now))
        .bind(&why)
        .execute(&mut *connection)
        .await?;
        inbox.refused.push((text.clone(), why));
    }
    Ok(inbox)
}
