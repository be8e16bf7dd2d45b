//! The daemon.

mod health;
