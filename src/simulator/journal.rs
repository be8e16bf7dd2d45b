//! What was asked, in order, for tests and for people who wonder.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use chrono::{DateTime, Utc};
use serde::Serialize;
use tokio::sync::watch;

/// Requests that are remembered; older ones go.
const MOST_REQUESTS: usize = 100_000;

/// Tokens that are kept; later ones are not.
const MOST_TOKENS: usize = 10_000;

/// A request to the API (not to the control API).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Request {
    /// When it came, by the simulator's clock.
    pub at: DateTime<Utc>,
    /// The method.
    pub method: String,
    /// The path.
    pub path: String,
    /// The query, decoded.
    pub query: Vec<(String, String)>,
    /// The key id that the token claims.
    pub key_id: Option<String>,
    /// Tells tokens apart without telling them: a hash of what came in `Authorization`.
    pub token: Option<u64>,
    /// The status answered; none while there is no answer, as with a reset or a hang.
    pub status: Option<u16>,
    /// Why the token was refused, which the caller is not told.
    pub refused_because: Option<&'static str>,
}

impl Request {
    /// The value of a query parameter.
    #[must_use]
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.query
            .iter()
            .find(|(given, _)| given == name)
            .map(|(_, value)| value.as_str())
    }
}

#[derive(Debug)]
pub(super) struct Journal {
    book: Mutex<Book>,
    count: watch::Sender<usize>,
}

#[derive(Debug, Default)]
struct Book {
    requests: VecDeque<Request>,
    /// The number of the first request that is still here.
    first: u64,
    /// Kept apart from the requests, which anyone may read.
    tokens: BTreeSet<String>,
    in_flight: HashMap<Option<String>, Flight>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Flight {
    now: usize,
    most: usize,
}

impl Default for Journal {
    fn default() -> Self {
        Self {
            book: Mutex::default(),
            count: watch::Sender::new(0),
        }
    }
}

impl Journal {
    /// Notes a request that has come.
    pub(super) fn open(&self, request: Request) -> Entry<'_> {
        let mut book = self.lock();
        let flight = book.in_flight.entry(request.key_id.clone()).or_default();
        flight.now += 1;
        flight.most = flight.most.max(flight.now);
        let key_id = request.key_id.clone();
        book.requests.push_back(request);
        if book.requests.len() > MOST_REQUESTS {
            book.requests.pop_front();
            book.first += 1;
        }
        let number = book.first + book.requests.len() as u64 - 1;
        self.count.send_replace(book.requests.len());
        Entry {
            journal: self,
            number,
            key_id,
        }
    }

    pub(super) fn requests(&self) -> Vec<Request> {
        self.lock().requests.iter().cloned().collect()
    }

    /// Keeps a token that has come.
    pub(super) fn keep(&self, token: &str) {
        let mut book = self.lock();
        if book.tokens.len() < MOST_TOKENS && !book.tokens.contains(token) {
            book.tokens.insert(token.to_owned());
        }
    }

    pub(super) fn tokens(&self) -> Vec<String> {
        self.lock().tokens.iter().cloned().collect()
    }

    /// Forgets the requests and the peaks; requests in flight go on.
    pub(super) fn forget(&self) {
        let mut book = self.lock();
        book.first += book.requests.len() as u64;
        book.requests.clear();
        for flight in book.in_flight.values_mut() {
            flight.most = flight.now;
        }
        self.count.send_replace(0);
    }

    pub(super) fn most_in_flight(&self, key_id: Option<&str>) -> usize {
        self.lock()
            .in_flight
            .get(&key_id.map(str::to_owned))
            .map_or(0, |flight| flight.most)
    }

    pub(super) fn count(&self) -> watch::Receiver<usize> {
        self.count.subscribe()
    }

    fn lock(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request in flight; it ends when this is dropped.
#[derive(Debug)]
pub(super) struct Entry<'a> {
    journal: &'a Journal,
    number: u64,
    key_id: Option<String>,
}

impl Entry<'_> {
    pub(super) fn refused(&self, reason: &'static str) {
        self.change(|request| request.refused_because = Some(reason));
    }

    pub(super) fn answered(&self, status: u16) {
        self.change(|request| request.status = Some(status));
    }

    fn change(&self, f: impl FnOnce(&mut Request)) {
        let mut book = self.journal.lock();
        let Some(index) = self.number.checked_sub(book.first) else {
            return;
        };
        if let Some(request) = usize::try_from(index)
            .ok()
            .and_then(|index| book.requests.get_mut(index))
        {
            f(request);
        }
    }
}

impl Drop for Entry<'_> {
    fn drop(&mut self) {
        if let Some(flight) = self.journal.lock().in_flight.get_mut(&self.key_id) {
            flight.now -= 1;
        }
    }
}
