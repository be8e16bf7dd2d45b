//! The integration tests, by subject.

#[cfg(feature = "simulator")]
mod asc;
mod catalog;
mod config;
mod credential;
#[cfg(feature = "simulator")]
mod simulator;
mod vault;
