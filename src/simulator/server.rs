//! What the connections of one simulator share.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::Error;
use super::auth::PublicKeys;
use super::budget::Budgets;
use super::clock::Clock;
use super::edit::Edits;
use super::fault::Faults;
use super::journal::Journal;
use super::state::State;

#[derive(Debug)]
pub(super) struct Server {
    pub(super) base_url: String,
    pub(super) ca_pem: Option<String>,
    pub(super) clock: Clock,
    pub(super) journal: Journal,
    pub(super) public_keys: PublicKeys,
    state: Mutex<State>,
    faults: Mutex<Faults>,
    edits: Mutex<Edits>,
    budgets: Mutex<Budgets>,
    latency: Mutex<Duration>,
}

impl Server {
    pub(super) fn new(state: State, base_url: String, ca_pem: Option<String>) -> Self {
        Self {
            base_url,
            ca_pem,
            clock: Clock::default(),
            journal: Journal::default(),
            public_keys: PublicKeys::default(),
            state: Mutex::new(state),
            faults: Mutex::default(),
            edits: Mutex::default(),
            budgets: Mutex::default(),
            latency: Mutex::default(),
        }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    pub(super) fn faults(&self) -> MutexGuard<'_, Faults> {
        lock(&self.faults)
    }

    pub(super) fn edits(&self) -> MutexGuard<'_, Edits> {
        lock(&self.edits)
    }

    /// Makes the edits that were to be made just before this request.
    pub(super) fn make_edits(&self, path: &str, query: &[(String, String)]) {
        let due = self.edits().meet(path, query);
        for edit in due {
            self.edit(edit);
        }
    }

    pub(super) fn budgets(&self) -> MutexGuard<'_, Budgets> {
        lock(&self.budgets)
    }

    pub(super) fn latency(&self) -> Duration {
        *lock(&self.latency)
    }

    pub(super) fn set_latency(&self, latency: Duration) {
        *lock(&self.latency) = latency;
    }

    /// Changes the state, and fills in what the change left out.
    pub(super) fn edit<T>(&self, f: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.state();
        let made = f(&mut state);
        if let Err(error) = state.fill() {
            tracing::warn!(event = "simulator.incomplete", error.sentence = %error, "the simulator's state is not complete");
        }
        made
    }

    /// Changes a copy of the state, and takes it when all is well.
    pub(super) fn try_edit<T, E: From<Error>>(
        &self,
        f: impl FnOnce(&mut State) -> Result<T, E>,
    ) -> Result<T, E> {
        let mut state = self.state();
        let mut copy = state.clone();
        let made = f(&mut copy)?;
        copy.complete()?;
        *state = copy;
        Ok(made)
    }

    /// The base of links: the host that the client asked, so that a simulator in a container links to itself.
    pub(super) fn base_of(&self, host: Option<&str>) -> String {
        let scheme = if self.ca_pem.is_some() {
            "https"
        } else {
            "http"
        };
        let plain = |host: &&str| {
            host.bytes()
                .all(|b| b.is_ascii_alphanumeric() || b".-_:[]".contains(&b))
        };
        host.filter(|host| !host.is_empty())
            .filter(plain)
            .map_or_else(
                || self.base_url.clone(),
                |host| format!("{scheme}://{host}"),
            )
    }
}

/// A test that panics while it edits the state leaves it as it is.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
