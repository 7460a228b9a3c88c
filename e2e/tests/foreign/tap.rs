//! What Wireshark makes of a tap's file.

use std::fs::{self, File};
use std::io::{self, PipeReader};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::mpsc;
use std::thread;

use carnet_e2e::command::finish;
use carnet_e2e::programs::{Scratch, program, require, succeed};
use carnet_proxy::Side;
use carnet_proxy::tap::{FlowInfo, Options, Stopped, Tap};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

const ENDS: [(&str, &str); 2] = [("127.0.0.1:40000", "192.0.2.7:80"), ("[::1]:40000", "[2001:db8::7]:80")];

const REQUEST: &str = "GET /tapped HTTP/1.1\r\nHost: tap.example\r\n\r\n";

#[test]
fn tshark_follows_a_tapped_stream_and_has_nothing_to_complain_of() {
    require(&["tshark"]);
    let scratch = Scratch::new();
    let path = scratch.file("tap.pcapng");
    let tap = Tap::create(&path, Options::default(), |stopped| panic!("{stopped}")).expect("a tap");
    // Many segments, and more than one acknowledgement.
    let body: String = ('a'..='z').cycle().take(300_000).collect();
    let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    for ends in ENDS {
        let flow = tap.flow(&info(ends));
        flow.name("tap.example");
        flow.client_sent(REQUEST.as_bytes());
        flow.client_closed();
        flow.server_sent(answer.as_bytes());
        flow.server_closed();
    }
    tap.flush(); // and not closed: it can be read while it grows

    assert_eq!(fields(&path, WARNED, &["frame.number", "_ws.expert.message"]), "");
    assert_eq!(fields(&path, "tcp.checksum.status != 1 || ip.checksum.status != 1", &["frame.number"]), "");
    for (stream, (_, server)) in ENDS.iter().enumerate() {
        let [sent, received] = follow(&path, stream);
        assert!(sent == REQUEST.as_bytes() && received == answer.as_bytes(), "stream {stream}: {} bytes", sent.len());
        let first = fields(&path, &format!("tcp.stream == {stream} && tcp.flags == 2"), &["frame.comment"]);
        let comments: Vec<_> = first.trim_end().split(';').collect();
        let process = "process curl, pid 42, uid 1000, exe /usr/bin/curl";
        assert_eq!(comments[1..], [process, "services inspect > scanner"]);
        assert!(comments[0].ends_with(&format!("to {server}")), "{comments:?}");
    }
    // One place that needs Wireshark to have put the segments together, and to have taken the names.
    let named = fields(&path, "frame.comment == \"name tap.example\"", &["http.host", "tcp.flags.syn"]);
    assert_eq!(named, "tap.example\t0\n".repeat(2));
    let lengths = fields(&path, "http.response", &["http.content_length"]);
    assert_eq!(lengths, "300000\n".repeat(2));
}

#[test]
fn tshark_sees_a_reset_and_a_lost_segment_where_there_were_some() {
    require(&["tshark"]);
    let scratch = Scratch::new();
    let path = scratch.file("tap.pcapng");
    let (reader, writer) = io::pipe().expect("a pipe");
    let options = Options { queue_bytes: 256 << 10, ..Options::default() };
    let tap = Tap::from_file(OwnedFd::from(writer).into(), options, |stopped| panic!("{stopped}")).expect("a tap");
    let flow = tap.flow(&info(ENDS[0]));
    while tap.counts().lost == 0 {
        flow.client_sent(&[b'x'; 10_000]); // nobody reads the pipe
    }
    let reading = thread::spawn({
        let path = path.clone();
        move || copy(reader, &path)
    });
    tap.flush();
    flow.client_sent(b"behind the gap");
    flow.reset(Side::Server);
    drop(flow);
    drop(tap);
    reading.join().expect("the pipe is read");

    let filter = "tcp.analysis.lost_segment && tcp.len > 0";
    let gap = fields(&path, filter, &["tcp.payload", "frame.comment"]);
    let (payload, comment) = gap.trim_end().split_once('\t').expect("one packet");
    assert_eq!(unhex(payload), b"behind the gap");
    assert_eq!(comment, "10000 bytes before this are not in the file: the tap's queue was full");
    let reset = fields(&path, "tcp.flags.reset == 1", &["ip.src"]);
    assert_eq!(reset, "192.0.2.7\n");
}

#[test]
fn a_disk_that_is_full_leaves_a_file_that_tshark_reads() {
    require(&["tshark"]);
    let scratch = Scratch::new();
    let disk = scratch.file("disk");
    fs::create_dir(&disk).expect("a mount point");
    // A thread of its own, whose mounts nobody else sees, and which takes them with it.
    let on_thread = || {
        unshare(CloneFlags::CLONE_NEWNS).expect("own mounts");
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>).expect("private");
        mount(Some("tmpfs"), &disk, Some("tmpfs"), MsFlags::empty(), Some("size=256k")).expect("a small disk");
        let path = disk.join("tap.pcapng");
        let (told, stops) = mpsc::channel();
        let tell = move |stopped| told.send(stopped).expect("the test waits");
        let tap = Tap::create(&path, Options::default(), tell).expect("a tap");
        let flow = tap.flow(&info(ENDS[0]));
        for _ in 0..100 {
            flow.client_sent(&[b'x'; 10_000]);
            tap.flush();
        }
        drop(flow);
        let counts = tap.close();
        let stops: Vec<_> = stops.iter().collect();
        let [Stopped::Write { source }] = &stops[..] else { panic!("{stops:?}") };
        assert_eq!(source.kind(), io::ErrorKind::StorageFull);

        assert_eq!(fields(&path, WARNED, &["frame.number", "_ws.expert.message"]), "");
        let lengths = fields(&path, "tcp.len > 0", &["tcp.len"]);
        let there = lengths.lines().map(|length| length.parse::<u64>().expect("a number")).sum::<u64>();
        assert!(there > 200_000 && there < 256 << 10 && there % 10_000 == 0, "{there} bytes");
        assert_eq!(fields(&path, "frame", &["frame.number"]).lines().count() as u64, counts.packets - counts.lost);
    };
    thread::scope(|scope| scope.spawn(on_thread).join()).expect("its panic is above");
}

fn info((source, destination): (&str, &str)) -> FlowInfo<'static> {
    FlowInfo {
        id: 7,
        source: source.parse().expect("an address"),
        destination: destination.parse().expect("an address"),
        name: None,
        pid: 42,
        comm: "curl",
        exe: Some(Path::new("/usr/bin/curl")),
        uid: 1000,
        services: &["inspect", "scanner"],
    }
}

/// Malformed packets, bad checksums and the like are errors, which are above warnings.
const WARNED: &str = "_ws.expert.severity >= 0x600000 || _ws.malformed";

/// One line for each packet that the filter lets pass; several values of a field are separated by ';'.
fn fields(path: &Path, filter: &str, fields: &[&str]) -> String {
    let mut tshark = program("tshark");
    tshark.arg("-n").arg("-r").arg(path).args(["-o", "tcp.check_checksum:TRUE", "-o", "ip.check_checksum:TRUE"]);
    tshark.args(["-Y", filter, "-T", "fields", "-E", "aggregator=;"]);
    let ended = finish(tshark.args(fields.iter().flat_map(|field| ["-e", field])));
    assert_eq!(ended.code, 0, "{ended:?}");
    assert!(!ended.errors.contains("cut short"), "{ended:?}");
    ended.output
}

/// What the client and the server sent. tshark indents the latter.
fn follow(path: &Path, stream: usize) -> [Vec<u8>; 2] {
    let follow = format!("follow,tcp,raw,{stream}");
    let shown = succeed(program("tshark").arg("-n").arg("-r").arg(path).args(["-q", "-z", &follow]));
    let is_data = |line: &&str| !line.trim().is_empty() && line.trim().bytes().all(|byte| byte.is_ascii_hexdigit());
    let (received, sent): (Vec<_>, Vec<_>) = shown.lines().filter(is_data).partition(|line| line.starts_with('\t'));
    [sent, received].map(|lines| unhex(&lines.iter().map(|line| line.trim()).collect::<String>()))
}

fn unhex(text: &str) -> Vec<u8> {
    let digits = text.as_bytes().chunks(2).map(|pair| str::from_utf8(pair).expect("hexadecimal digits"));
    digits.map(|pair| u8::from_str_radix(pair, 16).expect("hexadecimal digits")).collect()
}

fn copy(mut from: PipeReader, to: &Path) {
    let mut to = File::create(to).expect("a file");
    io::copy(&mut from, &mut to).expect("both work");
}
