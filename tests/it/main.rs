//! The integration tests, by subject.

#[cfg(feature = "simulator")]
mod asc;
mod catalog;
mod credential;
#[cfg(feature = "simulator")]
mod simulator;
mod vault;
