pub(crate) mod context;

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use carnet_abi::{Address, MAX_HOPS, ORIGIN_AMBIGUOUS, ORIGIN_INFERRED};
use zerocopy::FromBytes;

use crate::{
    Error,
    sys::{self, Item},
};

/// One application connection, as a service on its way sees it.
///
/// All times are since boot, on the clock which counts suspended time too (`CLOCK_BOOTTIME`). All process, user and
/// group ids are those of the initial namespaces, whatever namespace the service runs in.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Flow {
    id: u128,
    destination: SocketAddr,
    origin: Origin,
    chain: Vec<Hop>,
}

/// The first application's `connect()`, the same at every hop.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Origin {
    /// Where the application asked to go. A service on the way may have changed that: [`Flow::destination`].
    pub destination: SocketAddr,
    /// The address and port that the connection to the first service came from: loopback, where the application had not
    /// bound its socket to another address.
    pub source: Option<SocketAddr>,
    /// When it connected.
    pub time: Duration,
    /// Process id (thread group).
    pub pid: u32,
    /// When the process began: with `pid` the only name of a process that is never used again.
    pub start_time: Duration,
    /// Real user id.
    pub uid: u32,
    /// Real group id.
    pub gid: u32,
    /// Name of the process's first thread, at most 15 bytes; what is not UTF-8 is replaced. The process chooses it, so
    /// it proves nothing, and may hold anything: print it with `{:?}`.
    pub comm: String,
    /// The running executable.
    pub exe: Executable,
    /// cgroup2 id (inode) of the process.
    pub cgroup_id: u64,
    /// Network namespace of the socket.
    pub netns_cookie: u64,
    /// Family of the socket; an IPv6 one may have gone to an IPv4 destination.
    pub family: Family,
    /// Index of the interface the socket was bound to. The engine binds the flow's last hop to it where that goes to
    /// [`Origin::destination`], in the same network namespace, on a socket that the service has not bound itself.
    pub bound_interface: Option<u32>,
    /// A service before this one set no record; the engine took it from the flows which that service holds to this
    /// destination.
    pub inferred: bool,
    /// Those flows do not share one identity, so this one is the service's own.
    pub ambiguous: bool,
}

/// A file as the kernel knows it.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Executable {
    /// Device in the kernel's own encoding, `major << 20 | minor`; not what `stat()` reports.
    pub device: u32,
    /// Inode number on that device.
    pub inode: u64,
}

/// Family of a socket.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Family {
    /// `AF_INET`.
    V4,
    /// `AF_INET6`.
    V6,
}

/// One redirect.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Hop {
    /// The service's redirect handle, never used again within an engine's life.
    pub handle: u32,
    /// Id of the filter that redirected; `None` where a client dialled the service itself.
    pub filter: Option<u32>,
    /// When.
    pub time: Duration,
}

impl Flow {
    /// Reads an answer of the option `CARNET_FLOW`.
    ///
    /// A newer engine's answer is longer; what this library does not know is left unread.
    ///
    /// # Errors
    ///
    /// [`Malformed`](crate::ErrorKind::Malformed) where the bytes are fewer than those of version 1, or no engine
    /// writes such values.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
        let malformed = |what| Err(Error::malformed(Item::Flow, what));

        let Ok((flow, _later_fields)) = carnet_abi::Flow::read_from_prefix(bytes) else {
            return malformed(format!("{} bytes, the fewest are {}", bytes.len(), size_of::<carnet_abi::Flow>()));
        };
        if flow.version == 0 || usize::from(flow.size) < size_of::<carnet_abi::Flow>() {
            return malformed(format!("version {} with size {}", flow.version, flow.size));
        }
        let Some(chain) = usize::try_from(flow.depth).ok().and_then(|depth| flow.chain.get(..depth)) else {
            return malformed(format!("{} hops, the most are {MAX_HOPS}", flow.depth));
        };
        Ok(Self {
            id: carnet_abi::flow_id(flow.flow),
            destination: flow.remote.to_socket_addr(),
            origin: Origin::from_abi(&flow.origin)?,
            chain: chain.iter().map(Hop::from_abi).collect(),
        })
    }

    /// Id of the flow, the same at every hop and in the engine's events.
    pub fn id(&self) -> u128 {
        self.id
    }

    /// Where this hop's connection was going: dial this.
    pub fn destination(&self) -> SocketAddr {
        self.destination
    }

    /// The first application's connection.
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// Redirects so far, the one to this service included.
    pub fn depth(&self) -> usize {
        self.chain.len()
    }

    /// The redirects so far, oldest first; the last is the one to this service.
    pub fn chain(&self) -> &[Hop] {
        &self.chain
    }
}

impl Origin {
    /// Path of the executable, where it can be told for certain.
    ///
    /// The record holds device and inode, for a path is no identity: files are moved, and a container's `/usr/bin/curl`
    /// is another file. So `None` unless all of this is true *now*: the process runs and is the same one (a pid alone
    /// may be another's by now), still runs the executable with which it connected, and the path leads to that very
    /// file in the service's own mount namespace. Also `None` where the service may not look (it needs the process's
    /// uid or `CAP_SYS_PTRACE`, and a `/proc` of the initial pid namespace), and on file systems that report other numbers to
    /// `stat()` than the kernel uses (btrfs, overlayfs).
    /// Always `None` on Windows.
    pub fn executable_path(&self) -> Option<PathBuf> {
        sys::executable_path(self.pid, self.start_time, self.exe)
    }

    fn from_abi(origin: &carnet_abi::Origin) -> Result<Self, Error> {
        let family = match origin.family {
            AF_INET => Family::V4,
            AF_INET6_LINUX | AF_INET6_WINDOWS => Family::V6,
            other => {
                return Err(Error::malformed(Item::Flow, format!("address family {other} is neither IPv4 nor IPv6")));
            }
        };
        Ok(Self {
            destination: origin.remote.to_socket_addr(),
            source: chosen(&origin.local),
            time: Duration::from_nanos(origin.time),
            pid: origin.pid,
            start_time: Duration::from_nanos(origin.start_time),
            uid: origin.uid,
            gid: origin.gid,
            comm: String::from_utf8_lossy(origin.comm()).into_owned(),
            exe: Executable { device: origin.exe_dev, inode: origin.exe_ino },
            cgroup_id: origin.cgroup_id,
            netns_cookie: origin.netns_cookie,
            family,
            bound_interface: (origin.ifindex != 0).then_some(origin.ifindex),
            inferred: origin.flags & ORIGIN_INFERRED != 0,
            ambiguous: origin.flags & ORIGIN_AMBIGUOUS != 0,
        })
    }
}

impl Hop {
    fn from_abi(hop: &carnet_abi::Hop) -> Self {
        Self {
            handle: hop.handle,
            filter: (hop.filter != 0).then_some(hop.filter),
            time: Duration::from_nanos(hop.time),
        }
    }
}

/// The address, if it says anything: the unspecified one with port 0 is what a socket has that nobody bound.
fn chosen(address: &Address) -> Option<SocketAddr> {
    let address = address.to_socket_addr();
    (!address.ip().is_unspecified() || address.port() != 0).then_some(address)
}

/// The same everywhere.
const AF_INET: u8 = 2;
/// What the engine writes.
const AF_INET6_LINUX: u8 = 10;
/// What a callout writes.
const AF_INET6_WINDOWS: u8 = 23;
