//! The built-in redirect service: it reads the name a client asks for, and passes every byte on as it came.
//!
//! ```no_run
//! use carnet_proxy::{Options, Service, channel, raise_file_limit};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! raise_file_limit()?;
//! let service = Service::bind(&["127.0.0.1:15001".parse()?, "[::1]:15001".parse()?], Options::default())?;
//! let (reporter, mut reports) = channel(1024);
//! let shutdown = async { /* a signal, say */ };
//! tokio::spawn(service.run(reporter, shutdown));
//! while let Some(report) = reports.recv().await {
//!     println!("{report:?}");
//! }
//! # Ok(())
//! # }
//! ```
//!
//! Data enters by listeners which the engine redirects to, and leaves by connections that carry the record
//! ([`carnet::Records`]) to where the application was going. Names and trouble leave as [`Report`]s; byte counts do
//! not, for the engine's events have them.
//!
//! [`relay`] and [`NameReader`] work on any sockets and bytes, with no engine.
//!
//! # Runtime
//!
//! [`Service::run`] is a future for tokio's multi-thread runtime (`enable_all`). Idle workers take flows over there:
//! with one single-thread runtime per core, two bulk flows that happen to share a core would share it to their end.
//!
//! # Memory
//!
//! Each worker keeps one buffer of 256 KiB. A flow has none: bytes are read and written in one step, and only what the
//! other side does not take is kept, at most 256 KiB a direction. An idle flow takes about 2.5 KiB for its task and its
//! two sockets, besides the kernel's part; `tests/memory.rs` watches over that.
#![forbid(unsafe_code)]

pub mod ca;
mod error;
mod files;
pub mod har;
mod inspection;
mod limits;
mod name;
pub mod open;
mod relay;
mod report;
pub mod rules;
pub mod scan;
mod service;
pub mod tap;
pub mod upstream;

pub use crate::{
    error::Error,
    files::raise_file_limit,
    inspection::Inspection,
    limits::{Limit, Limits},
    name::{Found, Name, NameReader},
    relay::{End, Relayed, Side, relay, relay_after},
    report::{FlowReport, Report, Reporter, Sender, channel},
    service::{Options, Service, Summary},
};
