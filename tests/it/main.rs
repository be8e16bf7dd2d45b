//! The integration tests, by subject.
#![cfg(test)]

#[cfg(feature = "simulator")]
mod asc;
#[cfg(any(feature = "nats", feature = "rabbitmq", feature = "simulator"))]
mod broker;
#[cfg(feature = "simulator")]
mod cli;
#[cfg(feature = "simulator")]
mod codes;
mod config;
mod credential;
mod daemon;
mod deploy;
#[cfg(feature = "simulator")]
mod docs;
#[cfg(feature = "simulator")]
mod doctor;
mod events;
#[cfg(feature = "simulator")]
mod exposed;
#[cfg(all(feature = "nats", feature = "rabbitmq", feature = "simulator"))]
mod fleet;
#[cfg(feature = "simulator")]
mod history;
#[cfg(feature = "simulator")]
mod hostile;
#[cfg(feature = "simulator")]
mod house;
#[cfg(feature = "simulator")]
mod master_keys;
#[cfg(feature = "simulator")]
mod mistakes;
#[cfg(feature = "nats")]
mod nats;
mod postgres;
#[cfg(feature = "simulator")]
mod prometheus;
#[cfg(any(feature = "nats", feature = "rabbitmq"))]
mod queue;
#[cfg(feature = "rabbitmq")]
mod rabbitmq;
mod random;
#[cfg(feature = "simulator")]
mod raw;
#[cfg(all(feature = "simulator", feature = "nats", feature = "rabbitmq"))]
mod secrecy;
#[cfg(feature = "simulator")]
mod seeds;
#[cfg(feature = "simulator")]
mod shipped;
mod simulation;
#[cfg(feature = "simulator")]
mod simulator;
#[cfg(feature = "simulator")]
mod status;
mod store;
#[cfg(feature = "simulator")]
mod sync;
#[cfg(feature = "simulator")]
mod upgrades;
mod vault;
#[cfg(feature = "simulator")]
mod walk;
