//! Twins of `include/carnet_abi.h`; its comments are the reference.

use crate::Address;

/// Level of Carnet's socket options.
pub const SOL_CARNET: i32 = 0x4341;
/// Option: the records blob.
pub const CARNET_RECORDS: i32 = 1;
/// Option: the bytes the filter gave to this hop's provider.
pub const CARNET_CONTEXT: i32 = 2;
/// Option: the typed origin, [`Flow`].
pub const CARNET_FLOW: i32 = 3;
/// Option: the redirect state for the caller's provider, [`State`].
pub const CARNET_STATE: i32 = 4;

/// Version of the layouts in this file.
pub const ABI_VERSION: u16 = 1;
/// Most redirects one flow can go through.
pub const MAX_HOPS: usize = 16;
/// Cgroups of a record's line: those of levels 1 to 11 below the root.
pub const LINE: usize = 11;
/// No version of [`Records`] is larger.
pub const RECORDS_MAX: usize = 640;
/// Longest context.
pub const CONTEXT_MAX: usize = 2048;

/// [`Origin::flags`]: the service set no record; this one is that of the flows it holds to this destination.
pub const ORIGIN_INFERRED: u16 = 1;
/// [`Origin::flags`]: those flows do not share one identity, so the identity is the service's.
pub const ORIGIN_AMBIGUOUS: u16 = 2;
/// [`Origin::flags`]: a service before this one has gone elsewhere with the record than the application asked to go.
pub const ORIGIN_STRAYED: u16 = 4;

crate::twins! {
    /// The first application's `connect()`, the same at every hop. Times are `CLOCK_BOOTTIME` nanoseconds.
    struct Origin: 128 {
        /// Where the application asked to go.
        remote: Address,
        /// Its own address; all zero where the kernel had not chosen one.
        local: Address,
        /// Of the `connect()`.
        time: u64,
        /// Of the process.
        start_time: u64,
        /// cgroup2 id of the process.
        cgroup_id: u64,
        /// Network namespace of the socket.
        netns_cookie: u64,
        /// Inode of the running executable.
        exe_ino: u64,
        /// Its device in the kernel's encoding: `major << 20 | minor`.
        exe_dev: u32,
        /// Thread group id.
        pid: u32,
        /// Real uid.
        uid: u32,
        /// Real gid.
        gid: u32,
        /// Interface the socket was bound to, or 0.
        ifindex: u32,
        /// `AF_INET` or `AF_INET6`, of the socket.
        family: u8,
        /// `IPPROTO_TCP`.
        protocol: u8,
        /// `ORIGIN_*`.
        flags: u16,
        /// Name of the process's first thread, NUL-padded.
        comm: [u8; 16],
    }

    /// One redirect.
    struct Hop: 16 {
        /// When.
        time: u64,
        /// The provider's redirect handle, never reused within an engine instance.
        handle: u32,
        /// Id of the filter; 0 for a connection dialled straight to the provider.
        filter: u32,
    }

    /// The records blob. Opaque to services; a blob is exactly `size` bytes long.
    struct Records: 528 {
        /// [`ABI_VERSION`].
        version: u16,
        /// Size of this struct in the writer.
        size: u16,
        /// Of the key the tag was made with.
        key_id: u32,
        /// Instance id of the engine.
        engine: u64,
        /// Flow id, low half first.
        flow: [u64; 2],
        /// When it was queried.
        stamp: u64,
        /// The first application's connection.
        origin: Origin,
        /// Highest rank among the providers of the chain.
        floor: u32,
        /// Hops in use.
        depth: u32,
        /// Oldest first, the rest zero.
        chain: [Hop; MAX_HOPS],
        /// Ids of the origin's cgroup and of those above it, the highest first, the rest zero.
        line: [u64; LINE],
        /// SipHash-2-4 of all bytes before it.
        tag: u64,
    }

    /// Answer of [`CARNET_FLOW`]. Grows at its end.
    struct Flow: 432 {
        /// [`ABI_VERSION`].
        version: u16,
        /// Size of this struct in the kernel program.
        size: u16,
        /// Hops in use, this one included.
        depth: u32,
        /// Flow id, low half first.
        flow: [u64; 2],
        /// The first application's connection.
        origin: Origin,
        /// Where this hop's connection was going.
        remote: Address,
        /// Oldest first, the rest zero.
        chain: [Hop; MAX_HOPS],
    }
}

impl Origin {
    /// [`Origin::comm`] up to its first NUL.
    pub fn comm(&self) -> &[u8] {
        let end = self.comm.iter().position(|&byte| byte == 0).unwrap_or(self.comm.len());
        &self.comm[..end]
    }
}

/// The flow id's two halves as the one number users see.
pub fn flow_id(halves: [u64; 2]) -> u128 {
    u128::from(halves[1]) << 64 | u128::from(halves[0])
}

/// What a record says about one provider. The numbers are those of `FWPS_CONNECTION_REDIRECT_STATE`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u32)]
pub enum State {
    /// No record.
    NotRedirected = 0,
    /// The newest hop is the provider's.
    RedirectedBySelf = 1,
    /// There are hops, none is the provider's.
    RedirectedByOther = 2,
    /// A hop is the provider's, but not the newest.
    PreviouslyRedirectedBySelf = 3,
}

impl State {
    /// The state with this number.
    pub fn from_raw(raw: u32) -> Option<Self> {
        Some(match raw {
            0 => Self::NotRedirected,
            1 => Self::RedirectedBySelf,
            2 => Self::RedirectedByOther,
            3 => Self::PreviouslyRedirectedBySelf,
            _ => return None,
        })
    }
}
