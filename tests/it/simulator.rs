//! The simulator, driven as any client of App Store Connect would drive it.

#![cfg(test)] // so that the helpers count as test code for the lints

mod client;
mod control;
mod faults;
mod listings;
mod reads;
mod spec;
mod states;
mod tokens;
