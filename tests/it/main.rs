//! The integration tests, by subject.

mod catalog;
