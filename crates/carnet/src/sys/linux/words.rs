//! What the calls are called in messages, and what to do where that is another thing on another system.

use crate::sys::Item;

pub(crate) const APPLY: &str = "setsockopt CARNET_RECORDS";
pub(crate) const ORIGINAL_DESTINATION: &str = "getsockopt SO_ORIGINAL_DST";

pub(crate) const NO_ENGINE: &str =
    "no engine answers on this socket; start the service in a cgroup which the engine covers";
pub(crate) const NOT_OWNER: &str =
    "the newest redirect was to another service; set the records in the one that accepted the connection";

/// The call that asks for it.
pub(crate) fn query(item: Item) -> &'static str {
    match item {
        Item::Context => "getsockopt CARNET_CONTEXT",
        Item::Flow => "getsockopt CARNET_FLOW",
        Item::Records => "getsockopt CARNET_RECORDS",
        Item::State => "getsockopt CARNET_STATE",
    }
}

/// Reading the bytes of its answer.
pub(crate) fn decode(item: Item) -> &'static str {
    match item {
        Item::Context => "decode CARNET_CONTEXT",
        Item::Flow => "decode CARNET_FLOW",
        Item::Records => "decode CARNET_RECORDS",
        Item::State => "decode CARNET_STATE",
    }
}
