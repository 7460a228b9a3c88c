//! A pcapng file, read by an independent parser, and the TCP streams in it.

use std::{collections::BTreeMap, fs, net::SocketAddr, path::Path};

use carnet_proxy::Side;
use etherparse::{IpHeaders, TcpHeader};
use pcap_parser::{
    PcapNGOption,
    pcapng::{Block, parse_block_le},
};

#[derive(Debug, Default)]
pub struct Capture {
    pub application: String,
    pub linktype: i32,
    pub tsresol: u8,
    pub packets: Vec<Packet>,
    /// Packets and lost packets, with the comment.
    pub statistics: Vec<(u64, u64, String)>,
    /// Bytes behind the last whole block.
    pub rest: usize,
}

#[derive(Debug)]
pub struct Packet {
    pub nanoseconds: u64,
    pub source: SocketAddr,
    pub destination: SocketAddr,
    pub tcp: TcpHeader,
    pub payload: Vec<u8>,
    pub comments: Vec<String>,
}

#[derive(Debug)]
pub struct Stream {
    pub client: SocketAddr,
    pub server: SocketAddr,
    /// Those of all packets, in order.
    pub comments: Vec<String>,
    pub from_client: Way,
    pub from_server: Way,
}

#[derive(Debug, Default)]
pub struct Way {
    /// Where there is something, and what.
    pub pieces: BTreeMap<u32, Vec<u8>>,
    pub closed: bool,
    pub reset: bool,
    first: u32,
}

impl Capture {
    pub fn read(path: &Path) -> Self {
        Self::parse(&fs::read(path).unwrap())
    }

    pub fn parse(mut bytes: &[u8]) -> Self {
        let mut capture = Self::default();
        while let Ok((rest, block)) = parse_block_le(bytes) {
            capture.take(block);
            bytes = rest;
        }
        capture.rest = bytes.len();
        capture
    }

    /// Checks on the way that each segment is acknowledged as it should be, if nothing was lost.
    pub fn streams(&self) -> Vec<Stream> {
        let mut streams: Vec<Stream> = Vec::new();
        for packet in &self.packets {
            let Packet { source, destination, tcp, .. } = packet;
            if tcp.syn && !tcp.ack {
                let way = |first| Way { first, ..Way::default() };
                streams.push(Stream {
                    client: *source,
                    server: *destination,
                    comments: Vec::new(),
                    from_client: way(tcp.sequence_number.wrapping_add(1)),
                    from_server: way(0),
                });
            }
            let ends = [(*source, *destination), (*destination, *source)];
            let stream = streams.iter_mut().rev().find(|stream| ends.contains(&(stream.client, stream.server)));
            stream.expect("every stream begins with a SYN").take(packet);
        }
        streams
    }

    fn take(&mut self, block: Block<'_>) {
        match block {
            Block::SectionHeader(header) => self.application = texts(&header.options, 4).concat(),
            Block::InterfaceDescription(interface) => {
                self.linktype = interface.linktype.0;
                self.tsresol = interface.if_tsresol;
            }
            Block::EnhancedPacket(packet) => {
                assert_eq!(packet.caplen, packet.origlen);
                let nanoseconds = u64::from(packet.ts_high) << 32 | u64::from(packet.ts_low);
                let comments = texts(&packet.options, 1);
                self.packets.push(Packet::parse(&packet.data[..packet.caplen as usize], nanoseconds, comments));
            }
            Block::InterfaceStatistics(statistics) => {
                let number = |found: Option<Result<u64, _>>| found.unwrap().unwrap();
                let [packets, lost] = [statistics.isb_ifrecv(), statistics.isb_ifdrop()].map(number);
                self.statistics.push((packets, lost, texts(&statistics.options, 1).concat()));
            }
            block => panic!("an unexpected block: {block:?}"),
        }
    }
}

impl Packet {
    fn parse(bytes: &[u8], nanoseconds: u64, comments: Vec<String>) -> Self {
        let (ip, ip_payload) = IpHeaders::from_slice(bytes).unwrap();
        let (tcp, payload) = TcpHeader::from_slice(ip_payload.payload).unwrap();
        let segment = ip_payload.payload;
        let length = (segment.len() as u32).to_be_bytes();
        let (addresses, source, destination): (_, std::net::IpAddr, std::net::IpAddr) = match &ip {
            IpHeaders::Ipv4(header, _) => {
                assert_eq!(sum(&[&bytes[..20]]), 0xffff, "the checksum of an IPv4 header");
                assert_eq!(usize::from(header.total_len), bytes.len());
                (&bytes[12..20], header.source.into(), header.destination.into())
            }
            IpHeaders::Ipv6(header, _) => (&bytes[8..40], header.source.into(), header.destination.into()),
        };
        assert_eq!(sum(&[addresses, &[0, 6], &length, segment]), 0xffff, "the checksum of a segment");
        Self {
            nanoseconds,
            source: (source, tcp.source_port).into(),
            destination: (destination, tcp.destination_port).into(),
            payload: payload.to_vec(),
            tcp,
            comments,
        }
    }
}

impl Stream {
    pub fn way(&self, from: Side) -> &Way {
        match from {
            Side::Client => &self.from_client,
            Side::Server => &self.from_server,
        }
    }

    fn take(&mut self, packet: &Packet) {
        self.comments.extend(packet.comments.iter().cloned());
        let way = if packet.source == self.client { &mut self.from_client } else { &mut self.from_server };
        let tcp = &packet.tcp;
        if tcp.syn {
            way.first = tcp.sequence_number.wrapping_add(1);
            return;
        }
        assert!(!way.closed || packet.payload.is_empty(), "something was sent behind the end: {packet:?}");
        if !packet.payload.is_empty() {
            let offset = tcp.sequence_number.wrapping_sub(way.first);
            assert!(way.end() <= offset, "sent twice: {packet:?}");
            way.pieces.insert(offset, packet.payload.clone());
        }
        way.closed |= tcp.fin;
        way.reset |= tcp.rst;
    }
}

impl Way {
    /// All of it, where nothing is missing.
    pub fn whole(&self) -> Vec<u8> {
        let mut whole = Vec::new();
        for (&offset, piece) in &self.pieces {
            assert_eq!(offset as usize, whole.len(), "there is a gap");
            whole.extend_from_slice(piece);
        }
        whole
    }

    pub fn end(&self) -> u32 {
        self.pieces.last_key_value().map_or(0, |(offset, piece)| offset + piece.len() as u32)
    }
}

fn texts(options: &[PcapNGOption<'_>], code: u16) -> Vec<String> {
    let wanted = options.iter().filter(|option| option.code.0 == code);
    wanted.map(|option| option.as_str().unwrap().to_owned()).collect()
}

/// The internet's sum of 16-bit words, of parts of even length but the last.
fn sum(parts: &[&[u8]]) -> u32 {
    let words = parts.iter().flat_map(|part| part.chunks(2));
    let mut sum: u32 = words.map(|word| u32::from(word[0]) << 8 | u32::from(*word.get(1).unwrap_or(&0))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum
}
