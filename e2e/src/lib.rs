//! End-to-end tests of Carnet against the running kernel.
//!
//! Every test makes its own cgroups below the cgroup2 mount, attaches only there, and removes them again. Hooks follow
//! the cgroup in which a socket was made, so a test makes each socket inside the cgroup of the part it plays:
//! [`Sandbox::in_app`] and [`Sandbox::in_service`] move the whole test process there and back. Tests of one process
//! therefore run one after the other, which a lock sees to.
#![forbid(unsafe_code)]

mod sandbox;
pub mod sockets;

pub use sandbox::{Sandbox, Service};
