//! The policy file: what it can say, what is said about it, and that any text is answered.
#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

mod added;
mod any;
mod cases;
mod docs;
mod language;
mod many;
mod stage;
