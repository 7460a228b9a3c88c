//! UDP of redirected flows, which only Windows has: Carnet's engine redirects TCP alone.
//!
//! A redirected datagram comes to the service's socket like any other, and what redirected it is in the control data
//! beside it. Three things are not as with TCP:
//!
//! - The socket has to ask for it, at the level of each family it takes: `Listener` does.
//! - Only the datagram that begins a flow carries anything. Keep it under the client's address; those that follow have
//!   the same one. Where the first one is lost, or its control data cut off, so is its flow's provenance.
//! - The records go out the same way: beside the first datagram which the service sends on for the flow, with `send`.
//!
//! ```no_run
//! # #[cfg(windows)] fn serve() -> Result<(), Box<dyn std::error::Error>> {
//! use std::net::UdpSocket;
//!
//! use carnet::datagram::{self, Listener};
//!
//! let socket = UdpSocket::bind("[::]:15001")?;
//! let mut listener = Listener::of(&socket)?;
//! let mut buffer = [0; 65536];
//! let datagram = listener.receive(&mut buffer)?;
//! if let Some(records) = datagram.redirected.records() {
//!     let flow = datagram.redirected.flow()?;
//!     let outgoing = UdpSocket::bind("0.0.0.0:0")?;
//!     datagram::send(&outgoing, &buffer[..datagram.length], flow.destination(), records)?;
//! }
//! # Ok(()) }
//! ```
//!
//! `Listener`, `Received` and `send` are on Windows alone. The readers of control data are everywhere, for they read
//! bytes from outside, and are tested and fuzzed where that is easy.

pub mod control;
mod redirected;
#[cfg(windows)]
mod socket;

pub use self::redirected::Redirected;
#[cfg(windows)]
pub use self::socket::{Listener, Received, send};
