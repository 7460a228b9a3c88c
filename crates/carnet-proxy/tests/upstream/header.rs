//! The header of the PROXY protocol, read by a library that is not ours, and byte by byte.

use std::{
    fs,
    io::{Read, Write},
    net::SocketAddr,
    path::Path,
    process::{Command, Stdio},
};

use carnet::Flow;
use carnet_abi::{ABI_VERSION, ORIGIN_AMBIGUOUS, ORIGIN_INFERRED};
use carnet_proxy::upstream::{Kind, Target, Upstream, tlv};
use proxy_header::{ParseConfig, ProxyHeader, Tlv};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use zerocopy::{FromZeros, IntoBytes};

use crate::script::{listen, upstream, within};

#[tokio::test]
async fn it_comes_first_and_nothing_is_waited_for() {
    within(async {
        let listener = listen().await;
        let upstream = upstream(Kind::ProxyV2, &listener, None);
        let mut stream = TcpStream::connect(upstream.address()).await.unwrap();
        let (mut server, _) = listener.accept().await.unwrap();
        upstream.greet(&mut stream, &Target::to(at("198.51.100.7:443"))).await.unwrap();
        stream.write_all(b"hello").await.unwrap();
        drop(stream);
        let mut came = Vec::new();
        server.read_to_end(&mut came).await.unwrap();
        let expected = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c\0\0\0\0\xc6\x33\x64\x07\0\0\x01\xbbhello";
        assert_eq!(came, expected);
    })
    .await;
}

#[test]
fn both_addresses_are_of_one_family() {
    for (source, destination, told) in [
        ("127.0.0.1:40000", "198.51.100.7:443", ["127.0.0.1:40000", "198.51.100.7:443"]),
        ("[::1]:40000", "[2001:db8::7]:443", ["[::1]:40000", "[2001:db8::7]:443"]),
        ("[::ffff:127.0.0.1]:40000", "[::ffff:198.51.100.7]:443", ["127.0.0.1:40000", "198.51.100.7:443"]),
        ("127.0.0.1:40000", "[2001:db8::7]:443", ["[::ffff:127.0.0.1]:40000", "[2001:db8::7]:443"]),
        ("[::1]:40000", "198.51.100.7:443", ["[::1]:40000", "[::ffff:198.51.100.7]:443"]),
        ("0.0.0.0:0", "198.51.100.7:443", ["0.0.0.0:0", "198.51.100.7:443"]),
        ("[::]:0", "[2001:db8::7]:443", ["[::]:0", "[2001:db8::7]:443"]),
    ] {
        let flow = flow(source, destination);
        let bytes = header(&Target { flow: Some(&flow), ..Target::to(at(destination)) });
        let (header, _) = ProxyHeader::parse(&bytes, ParseConfig::default()).unwrap();
        let addresses = header.proxied_address().unwrap();
        assert_eq!([addresses.source, addresses.destination], told.map(at));
    }
}

/// docs/upstreams.md has these as a table.
#[test]
fn every_field_is_where_the_documentation_has_it() {
    let flow = flow("127.0.0.1:40000", "198.51.100.7:443");
    let alpn = ["h2", "http/1.1"].map(str::to_owned);
    let target = Target {
        address: at("198.51.100.7:443"),
        name: Some("example.org"),
        alpn: &alpn,
        flow: Some(&flow),
        executable: Some(Path::new("/usr/bin/curl")),
    };
    let expected: [(u8, &[u8]); 11] = [
        (0x02, b"example.org"),
        (tlv::ALPN_OFFERED, b"\x02h2\x08http/1.1"),
        (tlv::EXECUTABLE_PATH, b"/usr/bin/curl"),
        (tlv::USER, b"\0\0\x03\xe8\0\0\x03\xe9"),
        (tlv::PROCESS, b"\0\0\x10\xe1\0\0\0\0\x01\x02\x03\x04"),
        (tlv::COMM, b"curl"),
        (tlv::EXECUTABLE, b"\x00\x80\x00\x01\0\0\0\0\0\0\x12\x34"),
        (tlv::CHAIN, b"\0\0\0\x01\0\0\0\x09\0\0\0\0\0\0\0\x05\0\0\0\x02\0\0\0\0\0\0\0\0\0\0\0\x06"),
        (tlv::TRUST, b"\x03"),
        (0x05, b"\x11\x11\x11\x11\x11\x11\x11\x11\x22\x22\x22\x22\x22\x22\x22\x22"),
        (0, b""),
    ];
    assert_eq!(
        fields(&header(&target)),
        expected[..10].iter().map(|&(kind, v)| (kind, v.to_vec())).collect::<Vec<_>>()
    );

    let one = ["h2".to_owned()];
    let fields = fields(&header(&Target { alpn: &one, ..Target::to(target.address) }));
    assert_eq!(fields, [(0x01, b"h2".to_vec()), (tlv::ALPN_OFFERED, b"\x02h2".to_vec())]);
}

#[test]
fn the_reader_in_the_documentation_reads_it() {
    let text = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/upstreams.md")).unwrap();
    let (_, rest) = text.split_once("```python reader.py\n").unwrap();
    let (reader, _) = rest.split_once("```").unwrap();
    let flow = flow("[::1]:40000", "[2001:db8::7]:443");
    let target = Target {
        name: Some("example.org"),
        flow: Some(&flow),
        executable: Some(Path::new("/usr/bin/curl")),
        ..Target::to(flow.destination())
    };
    let mut python = Command::new("python3").args(["-c", reader]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let python = python.as_mut().expect("python3; run scripts/install-deps.sh unit");
    python.stdin.take().unwrap().write_all(&header(&target)).unwrap();
    let mut told = String::new();
    python.stdout.take().unwrap().read_to_string(&mut told).unwrap();
    assert!(python.wait().unwrap().success());
    let expected = [
        "name example.org",
        "path /usr/bin/curl",
        "uid 1000 gid 1001",
        "pid 4321 began 16909060",
        "comm curl",
        "device 8388609 inode 4660",
        "hop 1 filter 9 at 5",
        "hop 2 filter 0 at 6",
        "inferred ambiguous",
        "flow 11111111111111112222222222222222",
    ];
    assert_eq!(told.lines().collect::<Vec<_>>(), expected);
}

#[test]
fn what_is_not_known_is_not_there() {
    assert_eq!(fields(&header(&Target::to(at("198.51.100.7:443")))), []);
    let flow = Flow::from_bytes(raw("0.0.0.0:0", "198.51.100.7:443", |flow| flow.depth = 0).as_bytes()).unwrap();
    let fields = fields(&header(&Target { flow: Some(&flow), ..Target::to(flow.destination()) }));
    assert!(fields.iter().all(|(kind, _)| *kind != tlv::CHAIN), "{fields:?}");
}

#[test]
fn what_is_too_long_is_left_out() {
    let long = "x".repeat(70_000);
    let alpn = [long.clone(), "h2".into()];
    let target = Target {
        name: Some(&long),
        alpn: &alpn,
        executable: Some(Path::new(&long)),
        ..Target::to(at("198.51.100.7:443"))
    };
    assert_eq!(fields(&header(&target)), [(tlv::ALPN_OFFERED, b"\x02h2".to_vec())]);
    let many = vec!["p".repeat(250); 100];
    assert_eq!(fields(&header(&Target { alpn: &many, ..Target::to(target.address) })), []);
}

fn header(target: &Target<'_>) -> Vec<u8> {
    let upstream = Upstream::new(Kind::ProxyV2, at("192.0.2.1:80"), None).unwrap();
    let mut greeting = upstream.greeting(target).unwrap();
    let bytes = greeting.to_send().unwrap();
    assert!(greeting.is_over() && greeting.to_send().is_none());
    bytes
}

/// In the order in which they are there.
fn fields(bytes: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let (header, length) = ProxyHeader::parse(bytes, ParseConfig::default()).unwrap();
    assert_eq!(length, bytes.len());
    let value = |field: Tlv<'_>| match field {
        Tlv::Alpn(bytes) | Tlv::UniqueId(bytes) | Tlv::Custom(_, bytes) => bytes.into_owned(),
        Tlv::Authority(text) => text.into_owned().into_bytes(),
        field => panic!("{field:?}"),
    };
    header.tlvs().map(|field| field.map(|field| (field.kind(), value(field))).unwrap()).collect()
}

fn flow(source: &str, destination: &str) -> Flow {
    let bytes = raw(source, destination, |_| {});
    Flow::from_bytes(bytes.as_bytes()).unwrap()
}

fn raw(source: &str, destination: &str, change: impl FnOnce(&mut carnet_abi::Flow)) -> carnet_abi::Flow {
    let mut flow = carnet_abi::Flow::new_zeroed();
    flow.version = ABI_VERSION;
    flow.size = u16::try_from(size_of::<carnet_abi::Flow>()).unwrap();
    flow.flow = [0x2222_2222_2222_2222, 0x1111_1111_1111_1111];
    flow.remote = at(destination).into();
    flow.origin.family = 2;
    flow.origin.local = at(source).into();
    flow.origin.remote = at(destination).into();
    (flow.origin.uid, flow.origin.gid, flow.origin.pid) = (1000, 1001, 4321);
    flow.origin.start_time = 0x0102_0304;
    (flow.origin.exe_dev, flow.origin.exe_ino) = (8 << 20 | 1, 0x1234);
    flow.origin.flags = ORIGIN_INFERRED | ORIGIN_AMBIGUOUS;
    flow.origin.comm[..4].copy_from_slice(b"curl");
    flow.depth = 2;
    for (hop, (handle, filter, time)) in flow.chain.iter_mut().zip([(1, 9, 5), (2, 0, 6)]) {
        (hop.handle, hop.filter, hop.time) = (handle, filter, time);
    }
    change(&mut flow);
    flow
}

fn at(address: &str) -> SocketAddr {
    address.parse().unwrap()
}
