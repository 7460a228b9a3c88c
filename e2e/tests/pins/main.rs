//! Pinned engines: processes that have them are killed under load, others go on, and builds change.
#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]
#![forbid(unsafe_code)]

mod builds;
mod course;
mod killed;
