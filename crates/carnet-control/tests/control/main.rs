//! The API over real Unix sockets, before a backend that keeps everything in memory.
#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

mod access;
mod client;
mod curl;
mod descriptors;
mod documented;
mod hostile;
mod limits;
mod memory;
mod python;
mod raw;
mod scene;
mod sessions;
mod socket;
mod streams;
