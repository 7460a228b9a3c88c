//! Descriptors that come with a request, and go with an answer.

use std::{
    io::{ErrorKind, IoSlice, Read, Write},
    mem::MaybeUninit,
    net::{TcpListener, TcpStream},
    os::{
        fd::{AsFd, BorrowedFd},
        unix::net::UnixStream,
    },
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use carnet_control::{
    Access, Held, Limits, Listener, MOST_DESCRIPTORS, OneOrMore, PassedListener, ProblemKind, SessionRequest,
};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg, sockopt};

use crate::{
    raw::{self, Answer},
    scene::{Scene, as_stranger, registration, soon},
};

#[tokio::test]
async fn a_session_brings_its_listener() {
    let scene = Scene::new();
    let listeners = [TcpListener::bind("127.0.0.1:0").unwrap(), TcpListener::bind("[::1]:0").unwrap()];
    let request = with_listeners(&[1, 0]);
    let client = scene.client().await;
    let session = client.session(&request, &[listeners[0].as_fd(), listeners[1].as_fd()]).await.unwrap();
    let addresses = listeners.each_ref().map(|listener| listener.local_addr().unwrap());
    let passed = scene.backend.state(|state| {
        let registration = &state.sessions[&session.registered().session];
        registration.listeners[0].iter().map(Listener::address).collect::<Vec<_>>()
    });
    assert_eq!(passed, [addresses[1], addresses[0]], "in the order in which they are named");

    // It is the same socket: it listens as long as one of us has it.
    drop(listeners);
    TcpStream::connect(addresses[0]).unwrap();
    drop(session);
    scene.ended(1).await;
    assert!(TcpStream::connect(addresses[0]).is_err());
}

#[tokio::test]
async fn listeners_are_counted_over_all_providers_of_a_request() {
    let scene = Scene::new();
    let listeners: Vec<_> = (0..3).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    let mut request = with_listeners(&[2]);
    request.providers.extend(with_listeners(&[]).providers);
    request.providers.extend(with_listeners(&[0, 1]).providers);
    let passed: Vec<_> = listeners.iter().map(AsFd::as_fd).collect();
    let session = scene.client().await.session(&request, &passed).await.unwrap();
    let got = scene.backend.state(|state| {
        let listeners = state.sessions[&session.registered().session].listeners.iter();
        listeners.map(|each| each.iter().map(Listener::address).collect()).collect::<Vec<Vec<_>>>()
    });
    let [first, second, third] = [0, 1, 2].map(|place: usize| listeners[place].local_addr().unwrap());
    assert_eq!(got, [vec![third], vec![], vec![first, second]]);

    let mut request = with_listeners(&[0]);
    request.providers.extend(with_listeners(&[0]).providers);
    let error = scene.client().await.session(&request, &passed).await.unwrap_err();
    assert!(error.to_string().contains("descriptor 0 is named twice"), "{error}");
}

#[tokio::test]
async fn connections_wait_while_the_daemon_holds_a_listener() {
    let scene = Scene::new();
    let client = scene.client().await;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let held = client.hold("my proxy/2", &[listener.as_fd()], MINUTE).await.unwrap();
    assert_eq!((&held.provider[..], &held.listeners[..]), ("my proxy/2", &[address][..]));
    assert_eq!(held.seconds, 60);
    assert_eq!(scene.backend.state(|state| state.held["my proxy/2"].1), MINUTE);

    // The service ends, and is asked for before it is there again.
    drop(listener);
    let mut waiting = TcpStream::connect(address).unwrap();
    waiting.write_all(b"hello").unwrap();
    let mut released = client.release("my proxy/2").await.unwrap();
    assert_eq!(released[0].address(), address);
    let listener: TcpListener = released.remove(0).into();
    let mut accepted = listener.accept().unwrap().0;
    let mut text = [0; 5];
    accepted.read_exact(&mut text).unwrap();
    assert_eq!(&text, b"hello");

    let error = client.release("my proxy/2").await.unwrap_err();
    assert_eq!(error.problem().unwrap().kind, ProblemKind::NotFound);
}

#[tokio::test]
async fn a_hold_has_an_end() {
    let scene = Scene::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    for (body, seconds) in [(r#"{"listeners":[{"fd":0}]}"#, 60), (r#"{"listeners":[{"fd":0}],"for":3600}"#, 3600)] {
        let head = format!("POST /v1/providers/dlp/hold HTTP/1.1\r\nhost: c\r\ncontent-length: {}\r\n\r\n", body.len());
        let answer = send_with(&scene, &format!("{head}{body}"), &[listener.as_fd()]).await;
        assert_eq!((answer.status, answer.parse::<Held>().seconds), (200, seconds));
        assert_eq!(scene.backend.state(|state| state.held["dlp"].1), Duration::from_secs(seconds.into()));
    }
    let client = scene.client().await;
    for seconds in [0, 3601] {
        let error = client.hold("dlp", &[listener.as_fd()], Duration::from_secs(seconds)).await.unwrap_err();
        assert_eq!(error.problem().unwrap().kind, ProblemKind::Malformed);
        assert!(error.to_string().contains("from 1 to 3600"), "{error}");
    }
}

#[tokio::test]
async fn as_many_as_are_allowed_come_and_go() {
    let scene = Scene::new();
    let client = scene.client().await;
    let listeners: Vec<_> = (0..MOST_DESCRIPTORS).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    let borrowed: Vec<_> = listeners.iter().map(AsFd::as_fd).collect();
    let held = client.hold("dlp", &borrowed, MINUTE).await.unwrap();
    let released: Vec<_> = client.release("dlp").await.unwrap().iter().map(Listener::address).collect();
    assert_eq!(released, held.listeners);
    assert_eq!(released, listeners.iter().map(|listener| listener.local_addr().unwrap()).collect::<Vec<_>>());
}

#[tokio::test]
async fn descriptors_that_are_named_wrongly_are_told() {
    let scene = Scene::new();
    let client = scene.client().await;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let file = std::fs::File::open("/dev/null").unwrap();
    let cases: [(&[u32], &[BorrowedFd<'_>], &str); 5] = [
        (&[0], &[], "descriptor 0 is named, and 0 came"),
        (&[1], &[listener.as_fd()], "descriptor 1 is named, and 1 came"),
        (&[0, 0], &[listener.as_fd()], "descriptor 0 is named twice"),
        (&[0], &[file.as_fd()], "descriptor 0 is no listener: it is no socket"),
        (&[u32::MAX], &[listener.as_fd()], "is named, and 1 came"),
    ];
    for (named, passed, text) in cases {
        let error = client.session(&with_listeners(named), passed).await.unwrap_err();
        assert_eq!(error.problem().unwrap().kind, ProblemKind::Malformed);
        assert!(error.to_string().contains(text), "{error}");
    }
    assert_eq!(scene.backend.state(|state| state.begun), 0);
}

#[tokio::test]
async fn descriptors_that_nobody_names_are_closed() {
    let scene = Scene::new();
    let (theirs, ours) = UnixStream::pair().unwrap();
    let answer = send_with(&scene, "GET /v1/status HTTP/1.1\r\nhost: c\r\n\r\n", &[theirs.as_fd()]).await;
    assert_eq!(answer.status, 200);
    drop(theirs);
    closed(ours).await;
}

#[tokio::test]
async fn too_many_descriptors_are_closed_and_told() {
    let scene = Scene::new();
    let body = serde_json::to_string(&with_listeners(&[0])).unwrap();
    let head = format!("POST /v1/session HTTP/1.1\r\nhost: c\r\ncontent-length: {}\r\n\r\n", body.len());
    // 253 are the most that the kernel passes at once.
    for count in [MOST_DESCRIPTORS + 1, 253] {
        let (theirs, ours) = UnixStream::pair().unwrap();
        let answer = send_with(&scene, &format!("{head}{body}"), &vec![theirs.as_fd(); count]).await;
        assert_eq!(answer.status, 400);
        assert!(answer.problem().detail.contains("pass 16 at most"), "{}", answer.problem());
        drop(theirs);
        closed(ours).await;
    }
}

#[tokio::test]
async fn descriptors_are_counted_over_all_messages() {
    let scene = Scene::new();
    let body = serde_json::to_string(&with_listeners(&[0])).unwrap();
    let head = format!("POST /v1/session HTTP/1.1\r\nhost: c\r\ncontent-length: {}\r\n\r\n", body.len());
    let (theirs, ours) = UnixStream::pair().unwrap();
    let stream = UnixStream::connect(scene.socket()).unwrap();
    for part in format!("{head}{body}").as_bytes().chunks(100) {
        pass(&stream, part, &[theirs.as_fd(); 10]);
    }
    stream.set_nonblocking(true).unwrap();
    let answer = raw::read(&mut tokio::net::UnixStream::from_std(stream).unwrap()).await;
    assert!(answer.problem().detail.contains("pass 16 at most"), "{}", answer.problem());
    drop(theirs);
    closed(ours).await;
}

#[tokio::test]
async fn a_descriptor_that_is_slow_to_close_holds_up_nobody() {
    let scene = Scene::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let slow = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let deaf = listener.accept().unwrap().0;
    // close() waits until the other side has read everything, a minute at most.
    sockopt::set_socket_linger(&slow, Some(Duration::from_secs(60))).unwrap();
    slow.set_nonblocking(true).unwrap();
    while (&slow).write(&[0; 65536]).is_ok() {}

    slow.set_nonblocking(false).unwrap();

    let begun = Instant::now();
    let sender = UnixStream::connect(scene.socket()).unwrap();
    pass(&sender, b"GET /v1/status HTTP/1.1\r\nhost: c\r\n\r\n", &[slow.as_fd()]);
    // The last of them is the server's, which has not run yet: this test and the server have one thread.
    drop(slow);
    let client = scene.client().await;
    for _ in 0..20 {
        client.status().await.unwrap();
    }
    assert!(begun.elapsed() < Duration::from_secs(30), "others were held up");
    // Who sent it waits for the end.
    sender.set_nonblocking(true).unwrap();
    assert_eq!((&sender).read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
    drop(deaf);
    let answer = raw::read(&mut tokio::net::UnixStream::from_std(sender).unwrap()).await;
    assert_eq!(answer.status, 200);
}

#[tokio::test]
async fn a_connection_that_sends_ever_more_descriptors_has_no_more_of_them_kept() {
    let scene = Scene::new();
    let stream = UnixStream::connect(scene.socket()).unwrap();
    let (first, kept) = UnixStream::pair().unwrap();
    let head = b"PUT /v1/policy HTTP/1.1\r\nhost: c\r\ncontent-length: 1000\r\n\r\n";
    pass(&stream, head, &[first.as_fd(); MOST_DESCRIPTORS + 1]);
    drop(first);
    for _ in 0..3 {
        let (theirs, ours) = UnixStream::pair().unwrap();
        pass(&stream, b" ", &[theirs.as_fd(); 253]);
        drop(theirs);
        closed(ours).await;
    }
    kept.set_nonblocking(true).unwrap();
    assert_eq!((&kept).read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock, "as long as the request lasts");
    kept.set_nonblocking(false).unwrap();
    drop(stream);
    closed(kept).await;
}

/// Passes the last descriptor of a socket that takes 20 s to close.
const PASSES_WHAT_IS_SLOW_TO_CLOSE: &str = "
import socket, struct, sys
deaf = socket.create_server(('127.0.0.1', 0))
slow = socket.create_connection(deaf.getsockname())
slow.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 20))
slow.setblocking(False)
try:
    while True:
        slow.send(bytes(65536))
except BlockingIOError:
    pass
control = socket.socket(socket.AF_UNIX)
control.connect(sys.argv[1])
socket.send_fds(control, [b'GET /v1/status HTTP/1.1\\r\\nhost: c\\r\\n\\r\\n'], [slow.fileno()])
slow.close()
print('passed', flush=True)
sys.stdin.read()
";

#[tokio::test]
async fn what_a_caller_without_a_role_passes_is_closed_and_holds_up_nobody() {
    let scene = Scene::with(Limits::default(), Access::default());
    let mut python = as_stranger("python3");
    python.args(["-c", PASSES_WHAT_IS_SLOW_TO_CLOSE]).arg(scene.socket());
    let mut python = python.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    // Blocks the one thread that there is, so that the server reads nothing before the sender has closed its own: the last
    // one waits.
    python.stdout.take().unwrap().read_exact(&mut [0; 6]).unwrap();
    let begun = Instant::now();
    for _ in 0..20 {
        raw::ask(&scene.socket(), "GET", "/v1/status", "", b"").await;
    }
    assert!(begun.elapsed() < Duration::from_secs(15), "others were held up");
    drop(python.stdin.take());
    python.wait().unwrap();
}

/// Opens many connections, and passes as many descriptors by each as the kernel takes at once.
const HOARDS: &str = "
import resource, socket, sys, time
most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
one, other = socket.socketpair()
connections = []
for _ in range(200):
    control = socket.socket(socket.AF_UNIX)
    control.connect(sys.argv[1])
    try:
        # Not all of a head, so that it is waited for.
        socket.send_fds(control, [b'GET /v1/status HTTP/1.1\\r\\n'], [one.fileno()] * 253)
    except OSError:
        # It was one too many for the server, which has closed it.
        pass
    connections.append(control)
print('passed', flush=True)
sys.stdin.read()
";

/// Runs itself again with few descriptors.
#[tokio::test]
async fn a_daemon_with_few_descriptors_has_some_left_whatever_strangers_pass() {
    const NAME: &str = "descriptors::a_daemon_with_few_descriptors_has_some_left_whatever_strangers_pass";
    if std::env::var_os("CARNET_TEST_FEW_DESCRIPTORS").is_none() {
        let mut again = Command::new("prlimit");
        again.arg("--nofile=160:").arg(std::env::current_exe().unwrap()).args(["--exact", NAME, "--nocapture"]);
        let again = tokio::task::spawn_blocking(move || again.env("CARNET_TEST_FEW_DESCRIPTORS", "1").output());
        let output = again.await.unwrap().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
        assert!(text.contains("1 passed"), "{text}");
        return;
    }
    let scene = Scene::with(Limits::default(), Access::default());
    let mut python = as_stranger("python3");
    python.args(["-c", HOARDS]).arg(scene.socket());
    let mut python = python.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdout = python.stdout.take().unwrap();
    let passed = tokio::task::spawn_blocking(move || stdout.read_exact(&mut [0; 6]));
    soon("the descriptors", passed).await.unwrap().unwrap();

    let files: Vec<_> = (0..48).map(|_| std::fs::File::open("/dev/null").unwrap()).collect();
    let answer = raw::ask(&scene.socket(), "GET", "/v1/status", "", b"").await;
    // Who is not root is one of many strangers, and told so.
    assert!(answer.status == 200 || !rustix::process::geteuid().is_root(), "{}", answer.head);
    drop(files);
    drop(python.stdin.take());
    python.wait().unwrap();
}

const MINUTE: Duration = Duration::from_secs(60);

fn with_listeners(named: &[u32]) -> SessionRequest {
    let mut request = registration("dlp", 10);
    let provider = &mut request.providers[0];
    provider.listen = OneOrMore::default();
    provider.listeners = named.iter().map(|&fd| PassedListener { fd }).collect();
    request
}

async fn send_with(scene: &Scene, text: &str, descriptors: &[BorrowedFd<'_>]) -> Answer {
    let stream = UnixStream::connect(scene.socket()).unwrap();
    pass(&stream, text.as_bytes(), descriptors);
    stream.set_nonblocking(true).unwrap();
    raw::read(&mut tokio::net::UnixStream::from_std(stream).unwrap()).await
}

fn pass(stream: &UnixStream, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(253))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    assert!(ancillary.push(SendAncillaryMessage::ScmRights(descriptors)));
    let sent = sendmsg(stream, &[IoSlice::new(bytes)], &mut ancillary, SendFlags::empty()).unwrap();
    assert_eq!(sent, bytes.len());
}

/// The other end of this is closed everywhere.
async fn closed(mut stream: UnixStream) {
    let reading = tokio::task::spawn_blocking(move || stream.read(&mut [0]));
    assert_eq!(soon("the descriptors to be closed", reading).await.unwrap().unwrap(), 0);
}
