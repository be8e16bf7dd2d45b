//! The integration tests, by subject.

mod credential;
mod vault;
