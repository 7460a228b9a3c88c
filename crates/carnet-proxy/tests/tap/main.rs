//! What a tap writes, read back by a parser that is not its own. What Wireshark makes of it is in `e2e/tests/foreign`.

#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

mod capture;

use std::{
    fs::{self, File},
    io::{self, Read},
    os::{fd::OwnedFd, unix::fs::PermissionsExt},
    path::Path,
    sync::mpsc,
    thread,
    time::{Duration, Instant, SystemTime},
};

use carnet_proxy::{
    Side,
    tap::{Error, FlowInfo, Options, Stopped, Tap},
};
use etherparse::TcpOptionElement;
use proptest::prelude::*;
use tempfile::TempDir;

use self::capture::{Capture, Stream};

const CURL: FlowInfo<'static> = FlowInfo {
    id: 0xabc,
    source: std::net::SocketAddr::V4(std::net::SocketAddrV4::new(std::net::Ipv4Addr::LOCALHOST, 40_000)),
    destination: std::net::SocketAddr::V4(std::net::SocketAddrV4::new(std::net::Ipv4Addr::new(192, 0, 2, 7), 443)),
    name: None,
    pid: 42,
    comm: "curl",
    exe: None,
    uid: 1000,
    services: &["inspect", "scanner"],
};

#[derive(Clone, Debug)]
enum Call {
    Sent(Side, usize),
    Closed(Side),
    Reset(Side),
    Name,
}

fn side() -> impl Strategy<Value = Side> {
    prop_oneof![Just(Side::Client), Just(Side::Server)]
}

fn call() -> impl Strategy<Value = Call> {
    prop_oneof![
        8 => (side(), prop_oneof![0..100_usize, 16_000..17_000_usize, 100_000..200_000_usize])
            .prop_map(|(from, length)| Call::Sent(from, length)),
        2 => side().prop_map(Call::Closed),
        1 => side().prop_map(Call::Reset),
        1 => Just(Call::Name),
    ]
}

/// What a flow's streams should be.
#[derive(Debug, Default)]
struct Expected {
    sent: [Vec<u8>; 2],
    closed: [bool; 2],
    reset: [bool; 2],
    named: bool,
}

impl Expected {
    fn note(&mut self, call: &Call, bytes: &[u8]) {
        let over = self.closed == [true; 2] || self.reset != [false; 2];
        match *call {
            Call::Sent(from, _) if !over && !self.closed[index(from)] => self.sent[index(from)].extend(bytes),
            Call::Closed(from) if !over => self.closed[index(from)] = true,
            Call::Reset(by) if !over => self.reset[index(by)] = true,
            // It stands with whatever comes next, and that is at the latest the end.
            Call::Name => self.named |= !over,
            _ => {}
        }
    }

    fn check(&self, stream: &Stream) {
        for from in [Side::Client, Side::Server] {
            let way = stream.way(from);
            assert!(way.whole() == self.sent[index(from)], "what the {from:?} sent");
            assert_eq!(way.closed, self.closed[index(from)], "{from:?} closed");
        }
        let given_up = self.closed != [true; 2] && self.reset == [false; 2];
        assert_eq!(stream.from_client.reset, self.reset[0]);
        assert_eq!(stream.from_server.reset, self.reset[1] || given_up);
        assert_eq!(stream.comments.iter().any(|comment| comment == "the service gave this flow up"), given_up);
        assert_eq!(stream.comments.iter().any(|comment| comment == "name example.org"), self.named);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_interleaving_is_read_back_as_the_same_streams(calls in prop::collection::vec((0..3_usize, call()), 0..40)) {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("tap.pcapng");
        let options = Options { queue_bytes: 64 << 20, ..Options::default() };
        let tap = Tap::create(&path, options, |stopped| panic!("{stopped}")).unwrap();
        let ends = [
            ("127.0.0.1:40000", "192.0.2.7:443"),
            ("[::1]:40000", "[2001:db8::7]:443"),
            ("127.0.0.1:40001", "[2001:db8::7]:80"),
        ];
        let infos = ends.map(|(source, destination)| FlowInfo {
            source: source.parse().unwrap(),
            destination: destination.parse().unwrap(),
            ..CURL
        });
        let flows = infos.each_ref().map(|info| tap.flow(info));
        let mut expected = [(); 3].map(|()| Expected::default());
        for (number, (flow, call)) in calls.iter().enumerate() {
            let (tapped, expected) = (&flows[*flow], &mut expected[*flow]);
            let length = if let Call::Sent(_, length) = call { *length } else { 0 };
            let bytes = pattern(number, length);
            match call {
                Call::Sent(Side::Client, _) => tapped.client_sent(&bytes),
                Call::Sent(Side::Server, _) => tapped.server_sent(&bytes),
                Call::Closed(Side::Client) => tapped.client_closed(),
                Call::Closed(Side::Server) => tapped.server_closed(),
                Call::Reset(by) => tapped.reset(*by),
                Call::Name => tapped.name("example.org"),
            }
            expected.note(call, &bytes);
        }
        drop(flows);
        let counts = tap.close();

        let capture = Capture::read(&path);
        prop_assert_eq!(capture.rest, 0);
        prop_assert_eq!((counts.packets, counts.lost), (capture.packets.len() as u64, 0));
        let streams = capture.streams();
        prop_assert_eq!(streams.len(), 3);
        for (expected, stream) in expected.iter().zip(&streams) {
            expected.check(stream);
        }
    }
}

#[test]
fn a_file_tells_who_wrote_it_and_the_first_packet_whose_flow_it_is() {
    let (_folder, path, tap) = tap(Options::default());
    let before = SystemTime::now();
    let exe = Path::new("/usr/bin/cu\nrl");
    let flow = tap.flow(&FlowInfo { name: Some("first.example"), comm: "cu\u{1b}rl", exe: Some(exe), ..CURL });
    flow.client_sent(b"one");
    flow.name("second.example");
    flow.client_sent(b"two");
    drop(flow);
    drop(tap);

    let capture = Capture::read(&path);
    assert_eq!((capture.linktype, capture.tsresol), (101, 9));
    assert_eq!(capture.application, format!("carnet {}", env!("CARGO_PKG_VERSION")));
    let comments: Vec<_> = capture.packets.iter().map(|packet| packet.comments.clone()).collect();
    let first = [
        "flow 00000000000000000000000000000abc, from 127.0.0.1:40000 to 192.0.2.7:443",
        "process cu\\u{1b}rl, pid 42, uid 1000, exe /usr/bin/cu\\nrl",
        "services inspect > scanner",
        "name first.example",
    ];
    assert_eq!(comments[0], first);
    let two = capture.packets.iter().position(|packet| packet.payload == b"two").unwrap();
    assert_eq!(comments[two], ["name second.example"]);
    let all = comments.iter().flatten().count();
    assert_eq!(all, 6, "each is said once, and the end: {comments:?}");
    let since = |time: SystemTime| time.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_nanos() as u64;
    let times = capture.packets.iter().map(|packet| packet.nanoseconds);
    assert!(times.clone().is_sorted());
    let range = since(before)..=since(SystemTime::now());
    assert!(times.into_iter().all(|time| range.contains(&time)));
}

#[test]
fn an_address_that_is_ipv4_in_an_ipv6_socket_is_ipv4_in_the_file() {
    let (_folder, path, tap) = tap(Options::default());
    let source = "[::ffff:127.0.0.1]:40000".parse().unwrap();
    tap.flow(&FlowInfo { source, destination: "[::ffff:192.0.2.7]:443".parse().unwrap(), ..CURL });
    drop(tap);
    let streams = Capture::read(&path).streams();
    assert_eq!((streams[0].client, streams[0].server), (CURL.source, CURL.destination));
}

#[test]
fn a_second_flow_on_the_same_ports_is_a_stream_of_its_own() {
    let (_folder, path, tap) = tap(Options::default());
    for text in [b"one", b"two"] {
        let flow = tap.flow(&CURL);
        flow.client_sent(text);
        flow.client_closed();
        flow.server_closed();
    }
    drop(tap);
    let capture = Capture::read(&path);
    let firsts: Vec<_> = capture.packets.iter().filter(|packet| packet.tcp.syn).collect();
    assert_ne!(firsts[0].tcp.sequence_number, firsts[2].tcp.sequence_number);
    let streams = capture.streams();
    assert_eq!([streams[0].from_client.whole(), streams[1].from_client.whole()], [b"one", b"two"]);
}

#[test]
fn nobody_sends_more_than_the_other_sides_window() {
    let (_folder, path, tap) = tap(Options::default());
    let flow = tap.flow(&CURL);
    flow.server_sent(&pattern(1, 1 << 20));
    drop(flow);
    drop(tap);
    let capture = Capture::read(&path);
    let scale = capture.packets[0].tcp.options_iterator().find_map(|option| match option {
        Ok(TcpOptionElement::WindowScale(scale)) => Some(scale),
        _ => None,
    });
    let (mut acknowledged, mut window) = (0, 0);
    for packet in capture.packets.iter().filter(|packet| !packet.tcp.syn) {
        if packet.source == CURL.source {
            acknowledged = packet.tcp.acknowledgment_number;
            window = u32::from(packet.tcp.window_size) << scale.unwrap_or(0);
        } else {
            let end = packet.tcp.sequence_number.wrapping_add(packet.payload.len() as u32);
            assert!(end.wrapping_sub(acknowledged) <= window, "{:?}", packet.tcp);
        }
    }
}

#[test]
fn what_passed_gets_into_the_file_unasked() {
    let (_folder, path, tap) = tap(Options::default());
    let flow = tap.flow(&CURL);
    flow.client_sent(b"so far");
    let began = Instant::now();
    while !Capture::read(&path).packets.iter().any(|packet| packet.payload == b"so far") {
        assert!(began.elapsed() < Duration::from_secs(30), "it is not there");
        thread::yield_now();
    }
}

#[test]
fn a_file_can_be_read_while_it_grows_and_where_it_is_cut_off() {
    let (_folder, path, tap) = tap(Options::default());
    let flow = tap.flow(&CURL);
    flow.client_sent(b"so far");
    tap.flush();
    let grown = fs::read(&path).unwrap();
    let capture = Capture::parse(&grown);
    assert_eq!((capture.rest, capture.streams()[0].from_client.whole()), (0, b"so far".to_vec()));

    let mut packets = 0;
    for end in 0..grown.len() {
        let cut = Capture::parse(&grown[..end]).packets.len();
        assert!(cut == packets || cut == packets + 1, "{end} bytes");
        packets = cut;
    }
    assert_eq!(packets, capture.packets.len() - 1);
}

#[test]
fn what_the_queue_has_no_room_for_is_a_gap_and_never_wrong_data() {
    let (mut reader, writer) = io::pipe().unwrap();
    let options = Options { queue_bytes: 512 << 10, ..Options::default() };
    let tap = Tap::from_file(OwnedFd::from(writer).into(), options, |stopped| panic!("{stopped}")).unwrap();
    let flow = tap.flow(&CURL);
    let sent = pattern(1, 4 << 20);
    let began = Instant::now();
    for chunk in sent.chunks(100_000) {
        flow.client_sent(chunk); // nobody reads the pipe
    }
    assert!(began.elapsed() < Duration::from_secs(20), "it waited for the file");
    let unheard = tap.flow(&FlowInfo { source: "127.0.0.1:40001".parse().unwrap(), ..CURL });
    assert!(tap.counts().lost > 0);

    let reading = thread::spawn(move || {
        let mut file = Vec::new();
        reader.read_to_end(&mut file).map(|_| file)
    });
    tap.flush(); // now there is room again
    flow.client_sent(b"the end");
    unheard.client_sent(b"heard");
    for flow in [flow, unheard] {
        flow.client_closed();
        flow.server_closed();
    }
    let counts = tap.close();
    let capture = Capture::parse(&reading.join().unwrap().unwrap());

    let streams = capture.streams();
    let way = &streams[0].from_client;
    let (&last, end) = way.pieces.last_key_value().unwrap();
    assert_eq!((last as usize, &end[..]), (sent.len(), &b"the end"[..]));
    let mut there = 0;
    for (&offset, piece) in way.pieces.range(..last) {
        let offset = offset as usize;
        assert!(sent[offset..offset + piece.len()] == piece[..], "at {offset}");
        there += piece.len();
    }
    assert!(0 < there && there < sent.len(), "{there} bytes are there");
    let lost: usize = streams[0].comments.iter().filter_map(|comment| lost_bytes(comment)).sum();
    assert_eq!(there + lost, sent.len(), "{:?}", streams[0].comments);
    assert_eq!(streams[1].from_client.whole(), b"heard");
    let (packets, lost, _) = capture.statistics.last().unwrap();
    assert_eq!((*packets, *lost), (counts.packets, counts.lost));
    assert_eq!(packets - lost, capture.packets.len() as u64);
}

#[test]
fn a_flow_whose_beginning_found_no_room_begins_later_and_with_its_comments() {
    let (mut reader, writer) = io::pipe().unwrap();
    let options = Options { queue_bytes: 4 << 10, ..Options::default() };
    let tap = Tap::from_file(OwnedFd::from(writer).into(), options, |stopped| panic!("{stopped}")).unwrap();
    let mut filling = Vec::new();
    while tap.counts().lost == 0 {
        filling.push(tap.flow(&CURL)); // until the pipe and the queue are full
    }
    let late = tap.flow(&FlowInfo { source: "127.0.0.1:40001".parse().unwrap(), ..CURL });
    late.client_sent(b"lost");
    let reading = thread::spawn(move || {
        let mut file = Vec::new();
        reader.read_to_end(&mut file).map(|_| file)
    });
    tap.flush();
    late.client_sent(b"heard");
    tap.flush();
    drop(late);
    drop(tap);
    let capture = Capture::parse(&reading.join().unwrap().unwrap());
    let streams = capture.streams();
    let late = streams.iter().find(|stream| stream.client.port() == 40_001).unwrap();
    assert_eq!(late.comments.iter().filter(|comment| comment.starts_with("process curl")).count(), 1);
    assert_eq!(Vec::from_iter(&late.from_client.pieces), [(&4, &b"heard".to_vec())]);
}

#[test]
fn a_file_ends_at_its_limit_and_says_so_once() {
    let (told, stops) = mpsc::channel();
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("tap.pcapng");
    let limit = 256 << 10;
    let options = Options { file_bytes: Some(limit), ..Options::default() };
    let tap = Tap::create(&path, options, move |stopped| told.send(stopped).unwrap()).unwrap();
    let flow = tap.flow(&CURL);
    for _ in 0..100 {
        flow.client_sent(&[7; 10_000]);
        tap.flush();
    }
    drop(flow);
    tap.close();
    assert!(matches!(Vec::from_iter(stops)[..], [Stopped::Limit { bytes }] if bytes == limit));
    let length = fs::metadata(&path).unwrap().len();
    assert!(length <= limit && length > limit - (30 << 10), "{length} bytes");
    let capture = Capture::read(&path);
    assert_eq!(capture.rest, 0);
    let sent = capture.streams()[0].from_client.whole().len();
    assert!(sent > 200_000 && sent < limit as usize, "{sent} bytes");
    let [(packets, lost, comment)] = &capture.statistics[..] else { panic!("{:?}", capture.statistics) };
    assert_eq!(packets - lost, capture.packets.len() as u64);
    assert_eq!(comment, "the tap has ended: its file would become larger than 262144 bytes");
}

#[test]
fn a_disk_that_fills_up_ends_the_tap_and_says_so_once() {
    let (told, stops) = mpsc::channel();
    let (reader, writer) = io::pipe().unwrap();
    let file = OwnedFd::from(writer).into();
    let tap = Tap::from_file(file, Options::default(), move |stopped| told.send(stopped).unwrap()).unwrap();
    drop(reader);
    let flow = tap.flow(&CURL);
    for _ in 0..10 {
        flow.client_sent(b"still passed on");
        tap.flush();
    }
    drop(flow);
    let counts = tap.close();
    assert!(matches!(Vec::from_iter(stops)[..], [Stopped::Write { .. }]));
    assert!(counts.lost >= 3, "{counts:?}");
}

#[test]
fn a_file_that_cannot_even_begin_is_an_error() {
    let full = File::options().write(true).open("/dev/full").unwrap();
    let result = Tap::from_file(full, Options::default(), |stopped| panic!("{stopped}"));
    assert!(matches!(result, Err(Error::Write { source }) if source.kind() == io::ErrorKind::StorageFull));
}

#[test]
fn a_file_is_its_owners_alone_and_what_is_there_stays() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("tap.pcapng");
    let create = |path: &Path, replace| {
        Tap::create(path, Options { replace, ..Options::default() }, |stopped| panic!("{stopped}"))
    };
    drop(create(&path, false).unwrap());
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);

    // There, and readable by others under a second name.
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    let second = folder.path().join("second");
    fs::hard_link(&path, &second).unwrap();
    fs::write(&path, "something else").unwrap();
    assert!(matches!(create(&path, false), Err(Error::Exists { .. })));
    assert_eq!(fs::read(&path).unwrap(), b"something else");
    drop(create(&path, true).unwrap());
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::read(&second).unwrap(), b"something else");

    // A link to it, and one to nothing.
    for (name, to) in [("link", &second), ("dangling", &folder.path().join("nothing"))] {
        let link = folder.path().join(name);
        std::os::unix::fs::symlink(to, &link).unwrap();
        assert!(matches!(create(&link, false), Err(Error::Exists { .. })));
        assert!(matches!(create(&link, true), Err(Error::NotAFile { .. })));
    }
    assert!(!folder.path().join("nothing").exists());
    assert_eq!(fs::read(&second).unwrap(), b"something else");
    let error = create(&folder.path().join("no/folder"), false).unwrap_err();
    assert!(error.to_string().contains("no/folder; give a file in a folder"), "{error}");
}

fn tap(options: Options) -> (TempDir, std::path::PathBuf, Tap) {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("tap.pcapng");
    let tap = Tap::create(&path, options, |stopped| panic!("{stopped}")).unwrap();
    (folder, path, tap)
}

/// No two pieces of it are alike.
fn pattern(seed: usize, length: usize) -> Vec<u8> {
    let words =
        (0..length.div_ceil(8) as u64).map(|word| (word ^ (seed as u64) << 40).wrapping_mul(0x9E37_79B9_7F4A_7C15));
    words.flat_map(u64::to_le_bytes).take(length).collect()
}

fn index(side: Side) -> usize {
    match side {
        Side::Client => 0,
        Side::Server => 1,
    }
}

fn lost_bytes(comment: &str) -> Option<usize> {
    comment.split_once(" bytes before this are not in the file")?.0.parse().ok()
}
