//! The simulator, driven as any client of App Store Connect would drive it.

mod client;
mod control;
mod faults;
mod reads;
mod spec;
mod states;
mod tokens;
