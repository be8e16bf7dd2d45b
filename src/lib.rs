//! Keeps the App Store catalogs of many customers right in a SQL database.
//!
//! The way of one sync, from the command or tick that asks for it to the line that tells of it:
//!
//! | step | where |
//! |---|---|
//! | what asks for it: a slot of the schedule, a message, a row of the host's | [`schedule`], [`queue`], [`daemon`] |
//! | the project's lease, with a new epoch | [`store`] |
//! | its key, unsealed while a token is signed | [`vault`], [`credential`] |
//! | app and grace period, in-app purchases, groups with subscriptions | [`asc`] |
//! | what differs, and what of it may be written | [`catalog`] |
//! | entries, change log, revision and run record in one transaction | [`store`] |
//! | what it came to | [`run`], [`diagnosis`] |
//! | what changed, told to brokers | [`daemon`], [`queue`] |
//!
//! [`sync`] is that way from the lease on, and [`daemon`] what sets out on it by itself. [`onboard`] verifies a key before it
//! is stored, [`master_keys`] rotates what seals it, [`budget`] reckons what each key has left of its hour, [`cli`] parses and prints, [`simulator`] is
//! an App Store Connect to rehearse against.

#[cfg(test)]
#[macro_use]
mod lacks;

pub mod asc;
pub mod budget;
pub mod catalog;
pub mod cli;
pub mod clock;
pub mod config;
pub mod credential;
pub mod daemon;
pub mod diagnosis;
pub mod environment;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzz;
pub mod master_keys;
pub mod metrics;
pub mod onboard;
pub mod project;
pub mod queue;
pub mod retry;
pub mod run;
mod sabotage;
pub mod schedule;
#[cfg(feature = "simulator")]
pub mod simulator;
pub mod store;
pub mod sync;
pub mod telemetry;
pub mod vault;
