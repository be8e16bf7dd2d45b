//! The integration tests, by subject.
