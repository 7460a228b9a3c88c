//! Flows that are opened, over loopback: a client that trusts the authority, a server with one of its own.

mod bodies;
mod exchanges;
mod handshakes;
mod stage;
mod tunnels;
