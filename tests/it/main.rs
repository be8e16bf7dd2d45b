//! The integration tests, by subject.

mod catalog;
#[cfg(feature = "simulator")]
mod simulator;
mod credential;
mod vault;
