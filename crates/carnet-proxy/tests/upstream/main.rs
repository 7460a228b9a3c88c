//! Upstreams that are played by scripts over loopback. Real ones are in `e2e/tests/foreign/upstream.rs`.
#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

mod answers;
mod header;
mod http_connect;
mod script;
mod socks5;
mod trouble;
