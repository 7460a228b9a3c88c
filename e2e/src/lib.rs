//! End-to-end tests of Carnet against the running kernel.
//!
//! Every test makes its own cgroups below the cgroup2 mount, attaches only there, and removes them again. Hooks follow
//! the cgroup in which a socket was made, so a test makes each socket inside the cgroup of the part it plays:
//! [`Sandbox::in_app`] and [`Sandbox::in_service`] move the whole test process there and back. Tests of one process
//! therefore run one after the other, which a lock sees to.
#![deny(unsafe_code)]

pub mod actor;
pub mod carried;
pub mod command;
pub mod daemon;
pub mod flow_log;
mod ground;
pub mod load;
pub mod netns;
pub mod origin;
pub mod passing;
pub mod programs;
#[allow(unsafe_code, reason = "calls with arguments that no safe interface lets through")]
pub mod raw;
mod relay;
mod sandbox;
mod scene;
pub mod sockets;

pub use daemon::Daemon;
pub use ground::Ground;
pub use relay::{Relay, Running};
pub use sandbox::{Sandbox, Service, enter, redirect_all};
pub use scene::{Scene, set_records};
