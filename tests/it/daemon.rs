//! The daemon.

#[cfg(all(feature = "simulator", feature = "nats", feature = "rabbitmq"))]
mod brokers;
#[cfg(feature = "simulator")]
pub(crate) mod fixture;
mod health;
#[cfg(feature = "simulator")]
mod holds;
#[cfg(feature = "simulator")]
mod limits;
#[cfg(all(feature = "simulator", target_os = "linux"))]
mod memory;
#[cfg(feature = "simulator")]
mod metrics;
#[cfg(feature = "simulator")]
mod outages;
#[cfg(feature = "simulator")]
mod requests;
#[cfg(feature = "simulator")]
mod retention;
#[cfg(feature = "simulator")]
mod schedule;
#[cfg(feature = "simulator")]
mod start;
#[cfg(feature = "simulator")]
mod stop;
#[cfg(feature = "simulator")]
mod takeover;
#[cfg(all(feature = "otlp", feature = "simulator"))]
mod traces;
