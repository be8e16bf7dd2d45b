//! The integration tests, by subject.
//!
//! `cfg(test)` is always so here; it tells clippy that helpers, too, are tests and may unwrap.

#[cfg(test)]
mod postgres;
#[cfg(test)]
mod store;
