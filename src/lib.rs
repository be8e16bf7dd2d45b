//! Keeps the App Store catalogs of many customers right in a SQL database.

#[cfg(feature = "simulator")]
pub mod simulator;
