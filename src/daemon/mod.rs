//! The worker as a daemon: what keeps it alive, tells of it and ends it in order.
//!
//! [`pulse`] knows whether every loop still goes round, [`health`] tells that to probes and [`systemd`] to the service
//! manager; [`signals`] ends the daemon softly, then hard.

pub mod health;
pub mod pulse;
pub mod signals;
pub mod systemd;
