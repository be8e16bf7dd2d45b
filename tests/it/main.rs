//! The integration tests, by subject.

#[cfg(feature = "simulator")]
mod simulator;
