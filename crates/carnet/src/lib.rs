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
//! [`Redirect`] takes every socket that is [`AsFd`](std::os::fd::AsFd): those of std, tokio, socket2. Each call is one
//! or two socket options, never blocks, and needs no privilege. There is no connection to a daemon and no state in this
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
//! # Features
//!
//! `tokio`: an asynchronous `dial`, in the module `tokio`.
#![deny(unsafe_code)]

mod dial;
mod error;
mod flow;
mod records;
mod redirect;
mod sys;
#[cfg(feature = "tokio")]
pub mod tokio;

pub use carnet_abi::{CONTEXT_MAX, MAX_HOPS, RECORDS_MAX, State};

pub use crate::{
    dial::{dial, dial_timeout},
    error::{Error, ErrorKind},
    flow::{Executable, Family, Flow, Hop, Origin},
    records::Records,
    redirect::Redirect,
};
