//! Windows executables: real sockets, with Wine where there is no Windows. Wine knows none of the codes, so there it is
//! shown that each call gets to the system and what becomes of its refusal.
#![cfg(windows)]
#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

mod datagram;
mod redirect;

/// Wine tells the programs it runs where it is.
fn wine() -> bool {
    std::env::var_os("WINELOADER").is_some()
}
