//! What the calls are called in messages, and what to do where that is another thing on another system.

use crate::sys::Item;

pub(crate) const APPLY: &str = "WSAIoctl SIO_SET_WFP_CONNECTION_REDIRECT_RECORDS";
pub(crate) const ORIGINAL_DESTINATION: &str = "getsockopt SO_ORIGINAL_DST";

pub(crate) const NO_ENGINE: &str =
    "nothing answers on this socket; use Windows 8, Server 2012 or newer, and Microsoft's own provider of sockets";
pub(crate) const NOT_OWNER: &str = "records are set by administrators alone; run the service elevated";

/// The call that asks for it.
pub(crate) fn query(item: Item) -> &'static str {
    match item {
        Item::Context | Item::Flow => "WSAIoctl SIO_QUERY_WFP_CONNECTION_REDIRECT_CONTEXT",
        Item::Records | Item::State => "WSAIoctl SIO_QUERY_WFP_CONNECTION_REDIRECT_RECORDS",
    }
}

/// Reading the bytes of its answer.
pub(crate) fn decode(item: Item) -> &'static str {
    match item {
        Item::Context => "read the redirect context",
        Item::Flow => "read the flow in the redirect context",
        Item::Records => "read the redirect records",
        Item::State => "read the redirect state",
    }
}
