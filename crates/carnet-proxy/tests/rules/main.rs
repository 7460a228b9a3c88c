//! Rules: what they decide, what is said about a file, and that any text is answered.
#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

mod any;
mod cases;
mod docs;
mod language;
mod model;
mod stage;
