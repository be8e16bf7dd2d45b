//! Whether App Store Connect can be reached at all: no key is needed to learn that.

use super::{
    client::{Client, Shared},
    error::Failure,
    rate,
};
use crate::clock;

/// A path that Apple answers with 401 to whoever shows no token.
const PATH: &str = "v1/apps";

/// What answers at the address of App Store Connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reached {
    /// The status of its answer: Apple's is 401.
    pub status: u16,
    /// How far this machine's clock is ahead of its own, in seconds; none when the answer has no date.
    pub clock_ahead: Option<i64>,
}

impl Client {
    /// Sends one request without a token.
    ///
    /// # Errors
    /// When no answer came.
    pub async fn reach(&self) -> Result<Reached, Failure> {
        let Shared { wire, options, .. } = &*self.0;
        let mut url = options.base_url.clone();
        url.set_path(PATH);
        let answer = wire.get(&url, None, options).await;
        let response = answer.map_err(|error| error.why)?;
        Ok(Reached {
            status: response.status().as_u16(),
            clock_ahead: rate::clock_ahead(response.headers(), clock::now()),
        })
    }
}
