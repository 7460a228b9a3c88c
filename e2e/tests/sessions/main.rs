//! Products that register with a served host: over the control socket of a `carnet serve` that governs the test's cgroups.
#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]
#![forbid(unsafe_code)]

mod again;
mod by_hand;
mod listeners;
mod planned;
mod registered;
mod roles;
mod stage;

/// A process that registers by itself.
const PRODUCT: &str = env!("CARGO_BIN_EXE_carnet-e2e-product");
/// One that connects without end.
const PINNED: &str = env!("CARGO_BIN_EXE_carnet-e2e-pinned");
