//! Descriptors that come with a request, and go with an answer.

use std::{
    io::{ErrorKind, IoSlice, Read, Write},
    mem::MaybeUninit,
    net::{TcpListener, TcpStream},
    os::{
        fd::{AsFd, BorrowedFd},
        unix::net::UnixStream,
    },
    time::{Duration, Instant},
};

use carnet_control::{Listener, MOST_DESCRIPTORS, OneOrMore, PassedListener, ProblemKind, SessionRequest};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg, sockopt};

use crate::{
    raw::{self, Answer},
    scene::{Scene, registration, soon},
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
        registration.listeners.iter().map(Listener::address).collect::<Vec<_>>()
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
async fn connections_wait_while_the_daemon_holds_a_listener() {
    let scene = Scene::new();
    let client = scene.client().await;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let held = client.hold("my proxy/2", &[listener.as_fd()]).await.unwrap();
    assert_eq!((&held.provider[..], &held.listeners[..]), ("my proxy/2", &[address][..]));

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
async fn as_many_as_are_allowed_come_and_go() {
    let scene = Scene::new();
    let client = scene.client().await;
    let listeners: Vec<_> = (0..MOST_DESCRIPTORS).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    let borrowed: Vec<_> = listeners.iter().map(AsFd::as_fd).collect();
    let held = client.hold("dlp", &borrowed).await.unwrap();
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
async fn a_connection_that_sends_ever_more_descriptors_is_closed() {
    let scene = Scene::new();
    let (theirs, ours) = UnixStream::pair().unwrap();
    let mut stream = UnixStream::connect(scene.socket()).unwrap();
    pass(&stream, b"PUT /v1/policy HTTP/1.1\r\nhost: c\r\ncontent-length: 1000\r\n\r\n", &[theirs.as_fd()]);
    for _ in 0..3 {
        pass(&stream, b" ", &[theirs.as_fd(); 253]);
    }
    drop(theirs);
    closed(ours).await;
    let reading = tokio::task::spawn_blocking(move || {
        let mut answer = Vec::new();
        // It may be a reset, where there was something left to read.
        let _ = stream.read_to_end(&mut answer);
        answer
    });
    let answer = soon("the end of the connection", reading).await.unwrap();
    assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 400"), "{}", String::from_utf8_lossy(&answer));
}

fn with_listeners(named: &[u32]) -> SessionRequest {
    let mut request = registration("dlp", 10);
    let provider = request.provider.as_mut().unwrap();
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
