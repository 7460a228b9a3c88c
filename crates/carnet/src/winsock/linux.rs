//! The contract on Linux, over the engine's socket options. The calls with raw pointers are in `sys/linux/winsock.rs`.

pub(crate) mod answer;
pub(crate) mod apc;
pub(crate) mod bell;
pub(crate) mod event;
pub(crate) mod ioctl;
pub(crate) mod objects;
pub(crate) mod operations;
mod pending;
pub(crate) mod port;
pub(crate) mod sockets;
mod status;
mod sync;
#[allow(non_camel_case_types, non_snake_case, clippy::upper_case_acronyms, reason = "Windows' names")]
pub(crate) mod types;
pub(crate) mod wait;
