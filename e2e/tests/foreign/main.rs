//! Programs that nobody changed for Carnet, as services and as clients, with no nft or iptables rule.
//!
//! Each test has a network namespace of its own, so ports in it are nobody else's.

mod clients;
mod refusals;
mod stage;
mod story;
mod tap;
mod through;
mod truth;
mod upstream;
