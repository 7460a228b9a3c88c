//! The Windows program of a redirect service, run by Wine: it carries records, in a chain with Linux services.
//!
//! Wine does not know the three codes of connection redirection, so a library of `e2e/wine`, which each program loads,
//! answers them by asking the engine. Everything else is the program's and Wine's: the sockets, their connections, and
//! what the service makes of the answers.
#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

mod alone;
mod answers;
mod chains;
mod ending;
mod place;
mod service;
mod unsupported;
