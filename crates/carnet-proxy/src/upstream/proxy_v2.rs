use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::unix::ffi::OsStrExt,
    time::Duration,
};

use carnet::{Flow, Hop};
use proxy_header::{ProxiedAddress, ProxyHeader, Tlv};

use super::{Target, canonical};

/// Types of Carnet's own fields in a header of the PROXY protocol. docs/upstreams.md has what is in them; all integers are big endian.
///
/// Of the range that is free for everybody (0xE0 to 0xEF) these are not the ones which Google, Amazon and Microsoft send
/// (0xE0, 0xEA, 0xEE).
pub mod tlv {
    /// Real user and group id of the application, 4 bytes each.
    pub const USER: u8 = 0xE1;
    /// Process id, 4 bytes, and the time at which the process began, 8 bytes.
    pub const PROCESS: u8 = 0xE2;
    /// Name of the process, in UTF-8. The process chooses it.
    pub const COMM: u8 = 0xE3;
    /// Path of the executable, as the kernel has it: bytes.
    pub const EXECUTABLE_PATH: u8 = 0xE4;
    /// Device, 4 bytes, and inode, 8 bytes, of the executable.
    pub const EXECUTABLE: u8 = 0xE5;
    /// The hops, oldest first, 16 bytes each: redirect handle, 4 bytes, filter, 4 bytes (0: none), time, 8 bytes.
    pub const CHAIN: u8 = 0xE6;
    /// One byte of bits: how far the origin is to be trusted. 1: [inferred](carnet::Origin::inferred), 2: [ambiguous](carnet::Origin::ambiguous).
    pub const TRUST: u8 = 0xE7;
    /// The protocols that a TLS client offered, each behind one byte with its length.
    pub const ALPN_OFFERED: u8 = 0xE8;
}

pub(super) fn header(target: &Target<'_>) -> Vec<u8> {
    let source = target.flow.and_then(|flow| flow.origin().source);
    let mut header = ProxyHeader::with_address(addresses(source, target.address));
    let mut put = |field: Tlv<'_>, length: usize| {
        // Longer ones do not come from a kernel or a network. The crate would panic at 64 KiB.
        if (1..=FIELD_MAX).contains(&length) {
            header.append_tlv(field);
        }
    };
    if let Some(name) = target.name {
        put(Tlv::Authority(name.into()), name.len());
    }
    // The standard's field is for the protocol that is spoken. That is known where there is no choice.
    if let [only] = target.alpn {
        put(Tlv::Alpn(only.as_bytes().into()), only.len());
    }
    let mut own = |kind: u8, bytes: &[u8]| put(Tlv::Custom(kind, bytes.into()), bytes.len());
    own(tlv::ALPN_OFFERED, &offered(target.alpn));
    if let Some(path) = target.executable {
        own(tlv::EXECUTABLE_PATH, path.as_os_str().as_bytes());
    }
    if let Some(flow) = target.flow {
        of_origin(flow, own);
        header.append_tlv(Tlv::UniqueId(flow.id().to_be_bytes().to_vec().into()));
    }
    let mut bytes = Vec::new();
    // Neither of its errors can come: the families are one, and the fields are few and short.
    let encoded = header.encode_v2(&mut bytes);
    debug_assert_eq!(encoded, Ok(()));
    bytes
}

/// Both in one family, as the header wants it. Where it is not known where the client's connection came from, the
/// unspecified address stands there, with port 0.
fn addresses(source: Option<SocketAddr>, destination: SocketAddr) -> ProxiedAddress {
    let (source, destination) = (source.map(canonical), canonical(destination));
    let (source, destination) = match (source, destination) {
        (None, SocketAddr::V4(_)) => (SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0), destination),
        (None, SocketAddr::V6(_)) => (SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), 0), destination),
        (Some(source), _) if source.is_ipv4() == destination.is_ipv4() => (source, destination),
        (Some(source), _) => (mapped(source), mapped(destination)),
    };
    ProxiedAddress::stream(source, destination)
}

fn mapped(address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(v4) => SocketAddr::new(v4.to_ipv6_mapped().into(), address.port()),
        IpAddr::V6(_) => address,
    }
}

fn of_origin(flow: &Flow, mut put: impl FnMut(u8, &[u8])) {
    let origin = flow.origin();
    let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX).to_be_bytes();
    put(tlv::USER, &[origin.uid.to_be_bytes(), origin.gid.to_be_bytes()].concat());
    put(tlv::PROCESS, &[&origin.pid.to_be_bytes()[..], &nanos(origin.start_time)].concat());
    put(tlv::COMM, origin.comm.as_bytes());
    put(tlv::EXECUTABLE, &[&origin.exe.device.to_be_bytes()[..], &origin.exe.inode.to_be_bytes()].concat());
    let hop = |hop: &Hop| {
        let filter = hop.filter.unwrap_or(0).to_be_bytes();
        [&hop.handle.to_be_bytes()[..], &filter, &nanos(hop.time)].concat()
    };
    put(tlv::CHAIN, &flow.chain().iter().flat_map(hop).collect::<Vec<u8>>());
    put(tlv::TRUST, &[u8::from(origin.inferred) | u8::from(origin.ambiguous) << 1]);
}

fn offered(alpn: &[String]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for protocol in alpn {
        if let Ok(length) = u8::try_from(protocol.len()) {
            bytes.push(length);
            bytes.extend_from_slice(protocol.as_bytes());
        }
    }
    bytes
}

/// `PATH_MAX`.
const FIELD_MAX: usize = 4096;
