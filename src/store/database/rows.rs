//! Reading rows: a value that this version cannot read is an error that names its row.

use std::{fmt::Display, str::FromStr};

use serde::de::DeserializeOwned;
use sqlx::{Decode, Row as _, Type, types::Json};

use super::Db;
use crate::{clock::Instant, store::Error};

type DbRow = <Db as sqlx::Database>::Row;

/// One row of a table, with the columns that name it.
pub(super) struct Row<'r> {
    cells: &'r DbRow,
    table: &'static str,
    key: &'static [&'static str],
}

impl<'r> Row<'r> {
    pub(super) fn new(cells: &'r DbRow, table: &'static str, key: &'static [&'static str]) -> Self {
        Self { cells, table, key }
    }

    pub(super) fn value<T: Decode<'r, Db> + Type<Db>>(
        &self,
        column: &'static str,
    ) -> Result<T, Error> {
        self.cells
            .try_get(column)
            .map_err(|error| self.unreadable(column, error))
    }

    pub(super) fn text(&self, column: &'static str) -> Result<String, Error> {
        self.value(column)
    }

    pub(super) fn instant(&self, column: &'static str) -> Result<Instant, Error> {
        self.value(column)
    }

    pub(super) fn integer<T: TryFrom<i64, Error: Display>>(
        &self,
        column: &'static str,
    ) -> Result<T, Error> {
        T::try_from(self.value::<i64>(column)?).map_err(|error| self.unreadable(column, error))
    }

    /// A name of ours, such as a kind.
    pub(super) fn name<T: FromStr<Err: Display>>(&self, column: &'static str) -> Result<T, Error> {
        self.value::<&str>(column)?
            .parse()
            .map_err(|error| self.unreadable(column, error))
    }

    pub(super) fn optional_name<T: FromStr<Err: Display>>(
        &self,
        column: &'static str,
    ) -> Result<Option<T>, Error> {
        match self.value::<Option<&str>>(column)? {
            Some(_) => self.name(column).map(Some),
            None => Ok(None),
        }
    }

    pub(super) fn json<T: DeserializeOwned + 'r>(&self, column: &'static str) -> Result<T, Error> {
        Ok(self.value::<Json<T>>(column)?.0)
    }

    pub(super) fn optional_json<T: DeserializeOwned + 'r>(
        &self,
        column: &'static str,
    ) -> Result<Option<T>, Error> {
        Ok(self.value::<Option<Json<T>>>(column)?.map(|json| json.0))
    }

    fn unreadable(&self, column: &str, error: impl Display) -> Error {
        let name = self
            .key
            .iter()
            .map(|&part| {
                self.cells
                    .try_get::<&str, _>(part)
                    .unwrap_or("?")
                    .to_owned()
            })
            .collect::<Vec<_>>()
            .join("/");
        Error::Unreadable {
            what: format!("{column} of {} '{name}'", self.table),
            why: error.to_string(),
        }
    }
}
