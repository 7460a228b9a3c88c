//! `carnet serve`: one policy after the other under load, daemons that are killed and start again, and what the policy
//! names coming and going.
#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]
#![forbid(unsafe_code)]

mod beside;
mod exchange;
mod host;
mod killed;
mod names;
mod policies;
mod restart;
mod stopped;
