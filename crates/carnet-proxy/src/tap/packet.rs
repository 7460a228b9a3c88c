//! The packets that a kernel could have sent for what the relay saw.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use etherparse::{IpNumber, Ipv4Header, Ipv6FlowLabel, Ipv6Header, TcpHeader, TcpOptionElement};

use crate::Side;

/// The two ends of a stream, in one family.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ends {
    addresses: Addresses,
    client_port: u16,
    server_port: u16,
}

#[derive(Clone, Copy, Debug)]
enum Addresses {
    V4 { client: Ipv4Addr, server: Ipv4Addr },
    V6 { client: Ipv6Addr, server: Ipv6Addr },
}

/// What a segment says besides its bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Segment {
    pub(super) sequence: u32,
    /// `None` in the first segment of a connection only.
    pub(super) acknowledged: Option<u32>,
    pub(super) syn: bool,
    pub(super) fin: bool,
    pub(super) rst: bool,
    pub(super) psh: bool,
}

impl Ends {
    /// An IPv4 address that is written as an IPv6 one becomes IPv4 again, unless the other end is IPv6.
    pub(super) fn new(client: SocketAddr, server: SocketAddr) -> Self {
        let addresses = match (client.ip().to_canonical(), server.ip().to_canonical()) {
            (IpAddr::V4(client), IpAddr::V4(server)) => Addresses::V4 { client, server },
            (client, server) => Addresses::V6 { client: as_v6(client), server: as_v6(server) },
        };
        Self { addresses, client_port: client.port(), server_port: server.port() }
    }

    /// Appends one packet to `packet`. `payload` is at most [`SEGMENT_MAX`] bytes.
    pub(super) fn packet(&self, packet: &mut Vec<u8>, from: Side, segment: Segment, payload: &[u8]) {
        let (source, destination) = match from {
            Side::Client => (self.client_port, self.server_port),
            Side::Server => (self.server_port, self.client_port),
        };
        let mut tcp = TcpHeader::new(source, destination, segment.sequence, WINDOW);
        tcp.ack = segment.acknowledged.is_some();
        tcp.acknowledgment_number = segment.acknowledged.unwrap_or(0);
        (tcp.syn, tcp.fin, tcp.rst, tcp.psh) = (segment.syn, segment.fin, segment.rst, segment.psh);
        if segment.syn {
            let options = [
                TcpOptionElement::MaximumSegmentSize(SEGMENT_MAX as u16),
                TcpOptionElement::Noop,
                TcpOptionElement::WindowScale(WINDOW_SCALE),
            ];
            // 8 bytes of the 40 there is room for.
            let _ = tcp.set_options(&options);
        }
        let length = tcp.header_len_u16() + payload.len() as u16;
        match self.addresses {
            Addresses::V4 { client, server } => {
                let [source, destination] = directed(from, client, server).map(|address| address.octets());
                // None of these fails: a segment of SEGMENT_MAX bytes fits into a packet.
                let mut ip = Ipv4Header::new(length, HOPS, IpNumber::TCP, source, destination).unwrap_or_default();
                ip.header_checksum = ip.calc_header_checksum();
                tcp.checksum = tcp.calc_checksum_ipv4(&ip, payload).unwrap_or(0);
                packet.extend(ip.to_bytes());
            }
            Addresses::V6 { client, server } => {
                let [source, destination] = directed(from, client, server).map(|address| address.octets());
                let ip = Ipv6Header {
                    traffic_class: 0,
                    flow_label: Ipv6FlowLabel::ZERO,
                    payload_length: length,
                    next_header: IpNumber::TCP,
                    hop_limit: HOPS,
                    source,
                    destination,
                };
                tcp.checksum = tcp.calc_checksum_ipv6(&ip, payload).unwrap_or(0);
                packet.extend(ip.to_bytes());
            }
        }
        packet.extend(tcp.to_bytes());
        packet.extend(payload);
    }
}

fn directed<A>(from: Side, client: A, server: A) -> [A; 2] {
    match from {
        Side::Client => [client, server],
        Side::Server => [server, client],
    }
}

fn as_v6(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    }
}

/// Most bytes of the stream in one packet: as after segmentation offload, so that headers are half a percent of a file.
pub(super) const SEGMENT_MAX: usize = 16 << 10;

/// With [`WINDOW_SCALE`] 8 MiB: far more than is ever sent without an acknowledgement.
const WINDOW: u16 = u16::MAX;
const WINDOW_SCALE: u8 = 7;

const HOPS: u8 = 64;
