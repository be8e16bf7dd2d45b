//! Messages in and out: requests for a sync, and the changes that syncs found, over NATS `JetStream` and `RabbitMQ`.
//!
//! What must hold throughout: a message is a hint that names a project, never what changed. It is settled only after the
//! caller has committed what it asks for, so a message may come twice and is never lost. Each call ends within
//! [`PATIENCE`] or so when the broker is gone; only waiting for messages from a broker that is well has no end. What
//! failed is not mended here: the caller drops it and asks the [`Queue`] for another. No password is in an error or a log.

mod change;
#[cfg(feature = "nats")]
pub mod nats;
#[cfg(feature = "rabbitmq")]
pub mod rabbitmq;
mod request;

use std::{any::Any, fmt, time::Duration};

use async_trait::async_trait;

pub use change::{Change, Logged};
pub use request::{Malformed, Request};

/// How long a broker may take to answer.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// How many changes are under way at once.
#[cfg(any(feature = "nats", feature = "rabbitmq"))]
const IN_FLIGHT: usize = 256;

/// One broker.
#[async_trait]
pub trait Queue: Send + Sync {
    /// The broker's name in configuration and logs: `nats` or `rabbitmq`.
    fn name(&self) -> &'static str;

    /// Connects, and names what is absent on the broker. Nothing is made, and no message is taken.
    ///
    /// # Errors
    ///
    /// When the broker cannot be reached, or refuses something.
    async fn find_absent(&self) -> Result<Vec<String>, Error>;

    /// Connects, makes what is absent on the broker, and begins to take requests.
    ///
    /// # Errors
    ///
    /// When the broker cannot be reached, or refuses something.
    async fn consume(&self) -> Result<Box<dyn Consumer>, Error>;

    /// Connects, and makes what is absent on the broker to publish changes.
    ///
    /// # Errors
    ///
    /// When the broker cannot be reached, or refuses something.
    async fn publish(&self) -> Result<Box<dyn Publisher>, Error>;
}

/// Requests from one connection. Several may consume at once, in this process and in others; each message goes to one.
#[async_trait]
pub trait Consumer: Send {
    /// Waits for a message, then takes those that are there: at least one, and `most` at most. Dropping the future loses
    /// no message.
    ///
    /// # Errors
    ///
    /// When the broker went away. The deliveries that are not settled will come again, also to other consumers.
    async fn next(&mut self, most: usize) -> Result<Vec<Delivery>, Error>;

    /// Settles deliveries of this consumer, and returns when the broker has read it.
    ///
    /// # Errors
    ///
    /// When the broker went away, or cannot take a rejected message. Any of the deliveries may come again.
    async fn settle(&mut self, settled: Vec<(Delivery, Settlement)>) -> Result<(), Error>;
}

/// A message that waits to be settled.
pub struct Delivery {
    /// The message.
    pub body: Vec<u8>,
    /// The how manieth delivery of this message it is, as far as the broker counts; 1 for the first.
    pub attempt: u64,
    receipt: Box<dyn Any + Send + Sync>,
}

impl Delivery {
    /// A delivery with what its consumer settles it by.
    pub fn new(body: Vec<u8>, attempt: u64, receipt: impl Any + Send + Sync) -> Self {
        let receipt = Box::new(receipt);
        Self {
            body,
            attempt,
            receipt,
        }
    }

    /// What its consumer settles it by, if it is of that type.
    #[must_use]
    pub fn receipt<T: Any>(&self) -> Option<&T> {
        self.receipt.downcast_ref()
    }
}

/// Without the message, which is nothing for a log.
impl fmt::Debug for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Delivery")
            .field("bytes", &self.body.len())
            .field("attempt", &self.attempt)
            .finish_non_exhaustive()
    }
}

/// What becomes of a delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Settlement {
    /// What it asks for is committed: the broker forgets it.
    Ack,
    /// It will never be understood: to the dead letters.
    Reject {
        /// Why, in a sentence.
        reason: String,
    },
    /// It could not be taken now: it comes again.
    Retry {
        /// Not before this.
        after: Duration,
    },
}

/// Changes to one connection.
#[async_trait]
pub trait Publisher: Send {
    /// Publishes in this order, and returns when the broker has confirmed all of them.
    ///
    /// # Errors
    ///
    /// When not all of them were confirmed. Some may have been: publish the whole slice again, by a new publisher. The ids
    /// tell repeats.
    async fn publish(&mut self, changes: &[Change]) -> Result<(), Error>;
}

/// Why a broker does not do as it is asked, in a sentence that names it and never a password.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It cannot be reached, does not answer, or went away: ask the [`Queue`] again in a while.
    #[error("{0}")]
    Unavailable(String),
    /// It, or a setting, says no: somebody has to act before asking again helps.
    #[error("{0}")]
    Refused(String),
}

/// A text in one line of 300 characters at most, for headers and errors.
#[cfg(any(feature = "nats", feature = "rabbitmq"))]
fn line(text: &str) -> String {
    const LONGEST: usize = 300;
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(LONGEST)
        .collect()
}
