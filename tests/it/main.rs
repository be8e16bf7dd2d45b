//! The integration tests, by subject.

mod config;
mod credential;
mod vault;
