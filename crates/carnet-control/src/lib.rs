//! The control API of the daemon: HTTP/1.1 and JSON on a Unix socket.
//!
//! ```no_run
//! # use std::sync::Arc;
//! # use carnet_control::{Access, Backend, Client, ControlSocket, Server};
//! # async fn serve(daemon: Arc<impl Backend>) -> Result<(), Box<dyn std::error::Error>> {
//! let socket = ControlSocket::bind("/run/carnet/control.sock")?;
//! let server = Server::new(socket, daemon, Access::default());
//! let shutdown = async { /* a signal, say */ };
//! server.run(shutdown).await;
//! # Ok(())
//! # }
//! # async fn ask() -> Result<(), carnet_control::ClientError> {
//! let client = Client::connect("/run/carnet/control.sock").await?;
//! println!("{} providers", client.status().await?.providers);
//! # Ok(())
//! # }
//! ```
//!
//! A request enters [`Server`], which knows limits, roles and forms, and reaches the daemon as a call of [`Backend`]
//! with types. Nothing here knows of kernels or policies: a policy is text, and a registration goes to the backend as it
//! came. `docs/control-api.md` describes the API to those who call it; `docs/openapi.json` has all of its types.
//!
//! A session is as old as its connection. Descriptors come with a request and go with an answer by `SCM_RIGHTS`, which
//! HTTP knows nothing of: both sides have a layer of their own between hyper and the socket.
#![forbid(unsafe_code)]

mod access;
mod backend;
mod caller;
mod client;
mod listener;
mod problem;
mod server;
mod socket;
mod types;
mod wire;

#[cfg(test)]
mod openapi;

pub use self::{
    access::{Access, AccessLists, Identities, Role},
    backend::{Backend, Begun, SessionEnd, SessionNews},
    caller::Caller,
    client::{Client, ClientError, Lines, Session},
    listener::{Listener, NoListener},
    problem::{Elsewhere, Level, Mistake, Problem, ProblemKind},
    server::{Limits, Server},
    socket::{BindError, ControlSocket},
    types::*,
    wire::MOST_DESCRIPTORS,
};

/// Where a daemon listens unless it is told otherwise.
pub const DEFAULT_SOCKET: &str = "/run/carnet/control.sock";

const JSON: &str = "application/json";
const LINES: &str = "application/x-ndjson";
const PROBLEM_JSON: &str = "application/problem+json";
const TOML: &str = "application/toml";
const TEXT: &str = "text/plain";
