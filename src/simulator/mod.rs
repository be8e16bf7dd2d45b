//! A stateful App Store Connect.
