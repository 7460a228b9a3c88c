//! Two engines on one host, and programs of somebody else on the hooks that Carnet uses.
#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]
#![forbid(unsafe_code)]

mod answers;
mod callbacks;
mod foreign;
mod leaving;
mod nested;
mod options;
mod others;
mod runs;
mod same;
mod sockname;
mod together;
mod walk;
