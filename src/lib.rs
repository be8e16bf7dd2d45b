//! Keeps the App Store catalogs of many customers right in a SQL database.

pub mod catalog;
pub mod clock;
pub mod config;
pub mod credential;
pub mod diagnosis;
pub mod project;
pub mod run;
#[cfg(feature = "simulator")]
pub mod simulator;
pub mod store;
pub mod telemetry;
pub mod vault;
