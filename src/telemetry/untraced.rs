//! In place of traces, in a build without them. A configuration that asks for traces is refused.

use super::{Error, Hearer};
use crate::config;

/// There are none.
pub enum Traces {}

impl Traces {
    /// None.
    ///
    /// # Errors
    ///
    /// Never.
    pub fn start(_: &config::Traces, _: &str) -> Result<Option<Self>, Error> {
        Ok(None)
    }

    /// Nothing hears of spans.
    pub(super) fn layer(&self) -> Hearer {
        match *self {}
    }

    /// Nothing is to be sent.
    #[expect(clippy::unused_async, reason = "as with the feature")]
    pub async fn end(self) {
        match self {}
    }
}
