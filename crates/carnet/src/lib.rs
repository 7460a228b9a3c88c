//! What a redirect service links.
//!
//! Carnet's engine sends an application's connection to a local *redirect service*. The service accepts it, asks this
//! library where it was going and who made it ([`Flow`]), takes the connection's unforgeable record ([`Records`]), puts
//! it on the socket with which it goes on, and connects. The engine reads the record there: no service gets the same
//! flow twice.
//!
//! ```no_run
//! use std::net::TcpListener;
//!
//! use carnet::Redirect;
//!
//! let listener = TcpListener::bind("127.0.0.1:15001")?;
//! let (client, _) = listener.accept()?;
//!
//! let redirect = Redirect::of(&client);
//! let flow = redirect.flow()?;
//! println!("{:?} wants {}", flow.origin().comm, flow.destination());
//!
//! let server = redirect.dial()?; // record set, then connected
//! # drop(server);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! [`Redirect`] takes every socket that is `AsFd` on Linux and `AsSocket` on Windows: those of std, tokio, socket2. Each
//! call is one or two calls of the system's, and never blocks. There is no connection to a daemon and no state in this
//! library.
//!
//! # One outgoing socket per flow
//!
//! A record is about one application connection. Never put a connection dialled for one flow into a pool from which
//! another flow is served: the engine, its events and the services behind would take the second application for the
//! first. HTTP clients with keep-alive pools must be told to open one connection per accepted connection.
//!
//! # Errors
//!
//! [`Error::kind`] tells apart what a service can act on. On [`NotRedirected`](ErrorKind::NotRedirected) and
//! [`ContextLost`](ErrorKind::ContextLost) close the connection: there is no destination to guess.
//! `{}` prints what failed and what to do next, `{:#}` the operating system's reason as well.
//!
//! # Linux and Windows
//!
//! One source is for both. On Linux Carnet's engine answers, on Windows the Windows Filtering Platform, and a callout driver
//! is what redirects. What differs:
//!
//! | | Linux | Windows |
//! | --- | --- | --- |
//! | the flow | the engine's | read from the redirect context, if the callout gives it there: [`Flow::from_context`]. Otherwise [`NoFlow`](ErrorKind::NoFlow) |
//! | the context | the filter's bytes | the same; without the flow, where that is before them |
//! | lost, or never redirected | [`ContextLost`](ErrorKind::ContextLost), [`NotRedirected`](ErrorKind::NotRedirected) | always the latter |
//! | setting records | for the newest service | for administrators; others are [`NotOwner`](ErrorKind::NotOwner) |
//! | [`Redirect::state`] | of the caller's service | whether there are records |
//! | longest records, context | 640 bytes, 2 KiB | 64 KiB: [`RECORDS_MAX`], [`CONTEXT_MAX`] |
//! | [`Origin::executable_path`] | where it is certain | none |
//! | `SO_ORIGINAL_DST` | the engine's, or netfilter's | where a container's network policy has redirected (Server 2022) |
//! | UDP | not redirected | [`datagram`] |
//!
//! # Features
//!
//! `tokio`: an asynchronous `dial`, and the ends of overlapped operations, in the module `tokio`.
#![deny(unsafe_code)]

pub mod datagram;
mod dial;
mod error;
mod flow;
mod records;
mod redirect;
mod sys;
#[cfg(feature = "tokio")]
pub mod tokio;
pub mod winsock;

pub use carnet_abi::{MAX_HOPS, State};

pub use crate::{
    dial::{dial, dial_timeout},
    error::{Error, ErrorKind},
    flow::{Executable, Family, Flow, Hop, Origin},
    records::Records,
    redirect::Redirect,
    sys::{CONTEXT_MAX, RECORDS_MAX},
};
