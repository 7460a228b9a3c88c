//! `carnet proxy`: the built-in service by itself, as a provider of a daemon's policy.
#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]
#![forbid(unsafe_code)]

mod handover;
mod limits;
mod open;
mod rules;
mod site;
mod taps;
mod turnover;
mod upstreams;
