//! What the database is.

use super::{Connection, Db, rows::Row, sql};
use crate::store::{Disk, Error, Examined};

pub(super) async fn examine(
    connection: &mut Connection,
    disk: Option<Disk>,
) -> Result<Examined, Error> {
    let row = sqlx::query::<Db>(sql::EXAMINE)
        .fetch_one(connection)
        .await?;
    let row = Row::new(&row, "database", &[]);
    Ok(Examined {
        server: row.text("server")?,
        clock: row.value("clock")?,
        journal: row.value("journal")?,
        disk,
        lacks: row
            .text("lacks")?
            .split_terminator(", ")
            .map(str::to_owned)
            .collect(),
    })
}
