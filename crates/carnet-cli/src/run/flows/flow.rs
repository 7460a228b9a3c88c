//! What is told of a flow.

use std::net::SocketAddr;
use std::time::Duration;

/// A flow that is over, or at the end of the run a flow as far as it came. A flow of UDP is one as soon as it begins.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Flow {
    /// The engine's id; 0 where there was no memory for a record.
    pub id: u128,
    /// Which kind of socket.
    pub protocol: Protocol,
    /// When the application called `connect()`, or sent the first datagram: `CLOCK_BOOTTIME`, nanoseconds.
    pub begun: u64,
    /// Of the application; of the service where [`Flow::ambiguous`].
    pub pid: u32,
    /// Real uid.
    pub uid: u32,
    /// The process's name, which the process itself chooses.
    pub program: String,
    /// The application's own address, where it got as far as having one.
    pub source: Option<SocketAddr>,
    /// Where the application asked to go.
    pub destination: SocketAddr,
    /// What a service read.
    pub name: Option<Name>,
    /// Payload bytes from and to the application. `None`: nobody counts them.
    pub bytes: Option<Bytes>,
    /// From `connect()` to the end; `None`: refused at once, still open, of UDP, or the kernel's own.
    pub duration: Option<Duration>,
    /// What was decided at the application's `connect()`.
    pub decision: Decision,
    /// Services that had it, in order.
    pub chain: Vec<Link>,
    /// The connection of a service that carries no records, for flows of several applications.
    pub ambiguous: bool,
    /// How it ended.
    pub end: End,
}

/// What a flow is made of.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Protocol {
    /// One connection, over all its hops.
    Tcp,
    /// All sockets that one process uses to reach one destination.
    Udp,
}

/// Payload bytes of a flow.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Bytes {
    /// From the application.
    pub sent: u64,
    /// To the application.
    pub received: u64,
}

/// The destination's name as the application wrote it on the wire.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Name {
    /// As read: not to be trusted.
    pub text: String,
    /// The protocol it was read from: "tls", "http" or "http2".
    pub from: String,
}

/// What was decided at the application's `connect()`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Decision {
    /// Through at least one service.
    Redirected,
    /// Straight to its destination: a filter said so, or none matched.
    Direct,
    /// Straight to its destination because it cannot be redirected; `carnet_abi::REASON_*`.
    LeftAlone(u32),
    /// Straight to its destination, without being looked at: UDP.
    NotInspected,
    /// Not let through.
    Refused,
}

/// One service of the chain.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Link {
    /// The service's name.
    pub service: String,
    /// It set no record on its outgoing connection, so which flow that belongs to was inferred.
    pub inferred: bool,
}

/// How a flow ended.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum End {
    /// Both sides said that they were done.
    Closed,
    /// The application broke it off.
    Aborted,
    /// Broken off by, or lost at; with the errno.
    Reset(Place, i32),
    /// Never got through to; with the errno, 0 where there is none.
    Failed(Place, i32),
    /// Carnet refused it: `carnet_abi::REASON_*`, the service concerned, the errno that the connecting program got.
    Refused {
        /// Why.
        reason: u32,
        /// The service concerned, if any.
        service: Option<String>,
        /// Which `connect()` got this.
        error: i32,
    },
    /// It is not over.
    Open,
    /// There is nothing that could tell: UDP, or a connection of the kernel's own.
    Untold,
}

/// Where something happened.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Place {
    /// At the destination, or on the way to it.
    Destination,
    /// At this service.
    Service(String),
}
