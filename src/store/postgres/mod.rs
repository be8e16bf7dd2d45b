//! Postgres: for teams that outgrow one host.
//!
//! What must hold throughout: the server ends what takes too long, and this side does not wait for a server that has
//! fallen silent; messages name host, port and database, never the user's password or the whole URL.
//!
//! The server's timeouts are set when a connection begins, by the startup parameter `options`. A pooler must let it pass
//! (`PgBouncer`: `ignore_startup_parameters`, and then the timeouts are set for the role) and support prepared statements.

mod explain;
mod sql;

#[expect(
    clippy::duplicate_mod,
    reason = "one body, compiled for each of two databases"
)]
#[path = "../database/mod.rs"]
mod database;

use std::{str::FromStr as _, sync::Arc, time::Duration};

use sqlx::{
    ConnectOptions as _, Connection as _, PgConnection, Postgres,
    postgres::{PgConnectOptions, PgPoolOptions},
};

#[cfg(test)]
pub(super) use self::sql::MIGRATIONS;
use self::{database::Database, explain::Place};
use super::{Error, Options, SLOW_STATEMENT, Store};

type Db = Postgres;

pub(super) async fn open(url: &str, options: &Options) -> Result<Arc<dyn Store>, Error> {
    let parsed = PgConnectOptions::from_str(url)
        .map_err(|error| Error::Unusable(format!("the database's URL cannot be read: {error}")))?;
    let connect = configure(parsed, options);
    let place = Place::new(connect.clone(), options);
    place.probe().await?;
    let pool_of = |connections| {
        PgPoolOptions::new()
            .max_connections(connections)
            .acquire_timeout(options.connect_timeout)
            .connect_lazy_with(connect.clone())
    };
    let pool = pool_of(options.max_connections.max(1));
    Ok(Arc::new(Database::new(pool, pool_of(1), place, options)))
}

/// Sets what the URL does not.
fn configure(parsed: PgConnectOptions, options: &Options) -> PgConnectOptions {
    let given = parsed.get_options().unwrap_or_default().to_owned();
    let millis = |limit: Duration| limit.as_millis().to_string();
    let settings = [
        ("statement_timeout", millis(options.statement_timeout)),
        ("lock_timeout", millis(options.lock_timeout)),
        (
            "idle_in_transaction_session_timeout",
            millis(options.idle_in_transaction_timeout),
        ),
        // The server's side: sqlx opens no keepalive on this one, where the deadline of each call stands in.
        ("tcp_keepalives_idle", "30".to_owned()),
        ("tcp_keepalives_interval", "10".to_owned()),
        ("tcp_keepalives_count", "3".to_owned()),
    ];
    let named = parsed.get_application_name().is_some();
    let parsed = parsed.log_slow_statements(log::LevelFilter::Debug, SLOW_STATEMENT);
    let connect = parsed.options(
        settings
            .into_iter()
            .filter(|(name, _)| !given.contains(name)),
    );
    if named {
        connect
    } else {
        connect.application_name("catalog-sync")
    }
}

/// Connects once, apart from any pool, and hangs up.
async fn try_connection(connect: &PgConnectOptions) -> Result<(), sqlx::Error> {
    let mut connection = PgConnection::connect_with(connect).await?;
    connection.ping().await?;
    connection.close().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_url_sets_stays() {
        let parsed = PgConnectOptions::from_str(
            "postgres://u@h/d?options[statement_timeout]=1min&application_name=host",
        )
        .unwrap();
        let connect = configure(parsed, &Options::default());
        let settings = connect.get_options().unwrap();
        assert!(settings.contains("statement_timeout=1min"), "{settings}");
        assert!(!settings.contains("statement_timeout=1000"), "{settings}");
        assert!(settings.contains("lock_timeout=5000"), "{settings}");
        assert_eq!(connect.get_application_name(), Some("host"));
    }
}
