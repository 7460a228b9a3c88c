//! The relay between two real pairs of sockets. The client and the origin are the test's; the relay has the ends
//! between.
#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::{
    future::Future,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use carnet_proxy::{End, NameReader, Relayed, Side, relay};
use socket2::SockRef;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, Interest},
    net::{TcpSocket, TcpStream},
    task::JoinHandle,
    time::timeout,
};

#[tokio::test]
async fn the_server_may_speak_first() {
    within(async {
        let mut flow = Flow::open().await;
        flow.origin.write_all(b"220 ready\r\n").await.unwrap();
        expect(&mut flow.client, b"220 ready\r\n").await;
        flow.client.write_all(b"EHLO\r\n").await.unwrap();
        expect(&mut flow.origin, b"EHLO\r\n").await;
        assert_eq!(flow.close().await, (6, 11));
    })
    .await;
}

/// Each byte must come out before the next one goes in, so a relay that waits for a whole name would hang.
#[tokio::test]
async fn no_byte_is_held_back_while_a_name_is_read() {
    within(async {
        let hello: &[u8] = include_bytes!("hello/curl.bin");
        for bytes in [hello, b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n", b"\x16junk", b"SSH-2.0-x\r\n"] {
            let found = Arc::new(Mutex::new(None));
            let (mut reader, place) = (NameReader::new(), Arc::clone(&found));
            let mut flow = Flow::observed(move |bytes| {
                if let Some(name) = reader.read(bytes) {
                    *place.lock().unwrap() = Some(name);
                }
            })
            .await;
            for byte in bytes {
                flow.client.write_u8(*byte).await.unwrap();
                assert_eq!(flow.origin.read_u8().await.unwrap(), *byte);
            }
            flow.close().await;
            assert_eq!(*found.lock().unwrap(), NameReader::new().read(bytes));
        }
    })
    .await;
}

#[tokio::test]
async fn the_clients_end_leaves_the_answer_open() {
    within(async {
        let mut flow = Flow::open().await;
        flow.client.write_all(b"question").await.unwrap();
        flow.client.shutdown().await.unwrap();
        assert_eq!(read_to_end(&mut flow.origin).await.unwrap(), b"question");
        for part in [b"an", b"sw", b"er"] {
            flow.origin.write_all(part).await.unwrap();
            expect(&mut flow.client, part).await;
        }
        flow.origin.shutdown().await.unwrap();
        assert_eq!(read_to_end(&mut flow.client).await.unwrap(), b"");
        assert_eq!(flow.ended().await, (8, 6));
    })
    .await;
}

#[tokio::test]
async fn the_origins_end_leaves_the_question_open() {
    within(async {
        let mut flow = Flow::open().await;
        flow.origin.write_all(b"enough").await.unwrap();
        flow.origin.shutdown().await.unwrap();
        assert_eq!(read_to_end(&mut flow.client).await.unwrap(), b"enough");
        for part in [b"st", b"il", b"l "] {
            flow.client.write_all(part).await.unwrap();
            expect(&mut flow.origin, part).await;
        }
        flow.client.shutdown().await.unwrap();
        assert_eq!(read_to_end(&mut flow.origin).await.unwrap(), b"");
        assert_eq!(flow.ended().await, (6, 6));
    })
    .await;
}

/// What a reset finds the flow doing.
#[derive(Clone, Copy, Debug)]
enum Before {
    Nothing,
    /// The side that resets has ended its half.
    OwnEnd,
    /// The other side has ended its half.
    OthersEnd,
    /// The side that resets has sent more than the other one takes, which does not read.
    Blocked,
    /// The other side has sent more than this one takes.
    Blocking,
}

#[tokio::test]
async fn a_reset_is_a_reset_at_the_other_side() {
    for before in [Before::Nothing, Before::OwnEnd, Before::OthersEnd, Before::Blocked, Before::Blocking] {
        for by in [Side::Client, Side::Server] {
            within(async {
                let flow = Flow::small().await;
                let (mut own, mut other) = match by {
                    Side::Client => (flow.client, flow.origin),
                    Side::Server => (flow.origin, flow.client),
                };
                match before {
                    Before::Nothing => {}
                    Before::OwnEnd => {
                        own.shutdown().await.unwrap();
                        assert_eq!(read_to_end(&mut other).await.unwrap(), b"");
                    }
                    Before::OthersEnd => {
                        other.shutdown().await.unwrap();
                        assert_eq!(read_to_end(&mut own).await.unwrap(), b"");
                    }
                    Before::Blocked => drop(fill(&own).await),
                    Before::Blocking => drop(fill(&other).await),
                }
                reset(own);
                // Reading would not tell: after an end of data Linux goes on to say "end", reset or not.
                other.ready(Interest::ERROR).await.unwrap();
                let error = other.take_error().unwrap().expect("an error was announced");
                let expected = match before {
                    Before::OwnEnd => io::ErrorKind::BrokenPipe, // its name for a reset after the peer's end of data
                    _ => io::ErrorKind::ConnectionReset,
                };
                assert_eq!(error.kind(), expected, "{before:?}, {by:?}");
                match flow.relay.await.unwrap().end {
                    End::Reset { by: found, .. } => assert_eq!(found, by, "{before:?}"),
                    End::Closed => panic!("{before:?}, {by:?}: ended as if nothing had happened"),
                }
            })
            .await;
        }
    }
}

/// A server that answers without reading all of the question and closes: its kernel resets. The answer must come
/// through.
#[tokio::test]
async fn what_was_sent_before_a_reset_arrives() {
    within(async {
        for round in 0..50 {
            let mut flow = Flow::open().await;
            flow.client.write_all(b"question, not read").await.unwrap();
            flow.origin.peek(&mut [0]).await.unwrap();
            flow.origin.write_all(b"413").await.unwrap();
            drop(flow.origin);
            let mut answer = Vec::new();
            let error = flow.client.read_to_end(&mut answer).await.unwrap_err();
            assert_eq!(
                (answer.as_slice(), error.kind()),
                (&b"413"[..], io::ErrorKind::ConnectionReset),
                "round {round}"
            );
            assert!(matches!(flow.relay.await.unwrap().end, End::Reset { by: Side::Server, .. }));
        }
    })
    .await;
}

/// The server has sent and reset before the relay so much as looks; the relay meets the reset when it writes.
#[tokio::test]
async fn what_was_sent_before_a_reset_arrives_also_when_writing_meets_it() {
    within(async {
        for _ in 0..50 {
            let (mut client, accepted) = pair(None).await;
            let (onward, mut origin) = pair(None).await;
            client.write_all(b"question").await.unwrap();
            accepted.peek(&mut [0]).await.unwrap();
            origin.write_all(b"answer").await.unwrap();
            reset(origin);
            let relay = tokio::spawn(relay(accepted, onward, |_: &[u8]| {}));
            let mut answer = Vec::new();
            let error = client.read_to_end(&mut answer).await.unwrap_err();
            assert_eq!((answer.as_slice(), error.kind()), (&b"answer"[..], io::ErrorKind::ConnectionReset));
            assert!(matches!(relay.await.unwrap().end, End::Reset { by: Side::Server, .. }));
        }
    })
    .await;
}

#[tokio::test]
async fn a_relay_that_is_dropped_resets_both() {
    within(async {
        let mut flow = Flow::open().await;
        flow.client.write_all(b"x").await.unwrap();
        expect(&mut flow.origin, b"x").await;
        flow.relay.abort();
        for socket in [&mut flow.client, &mut flow.origin] {
            assert_eq!(read_to_end(socket).await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
        }
    })
    .await;
}

#[tokio::test]
async fn a_slow_reader_stops_the_sender_and_gets_all() {
    for by in [Side::Client, Side::Server] {
        within(async {
            let mut flow = Flow::small().await;
            let (sender, receiver) = match by {
                Side::Client => (&mut flow.client, &mut flow.origin),
                Side::Server => (&mut flow.origin, &mut flow.client),
            };
            let sent = fill(sender).await;
            // 4 socket buffers, which the kernel doubles, and the relay's.
            let most = 4 * 2 * SMALL + (256 << 10);
            assert!((1..=most).contains(&sent), "{sent} bytes are on the way, {most} is the most");

            sender.shutdown().await.unwrap();
            let received = read_to_end(receiver).await.unwrap();
            assert_eq!(received.len(), sent);
            assert!(received == pattern(0, sent), "changed on the way");
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_transfers_both_ways_at_once_arrive_unchanged() {
    const TOTAL: usize = 48 << 20;
    within(async {
        let flow = Flow::open().await;
        let (mut client, mut origin) = (flow.client.into_split(), flow.origin.into_split());
        let sends = [tokio::spawn(send(client.1, 1)), tokio::spawn(send(origin.1, 2))];
        tokio::join!(receive(&mut client.0, 2), receive(&mut origin.0, 1));
        for send in sends {
            send.await.unwrap();
        }
        let Relayed { to_server, to_client, end } = flow.relay.await.unwrap();
        assert_eq!((to_server, to_client), (TOTAL as u64, TOTAL as u64));
        assert!(matches!(end, End::Closed));
    })
    .await;

    async fn send(mut socket: tokio::net::tcp::OwnedWriteHalf, seed: usize) {
        for begin in (0..TOTAL).step_by(1 << 20) {
            socket.write_all(&pattern(begin + seed, 1 << 20)).await.unwrap();
        }
    }

    async fn receive(socket: &mut tokio::net::tcp::OwnedReadHalf, seed: usize) {
        let mut part = vec![0; 1 << 20];
        for begin in (0..TOTAL).step_by(1 << 20) {
            socket.read_exact(&mut part).await.unwrap();
            assert!(part == pattern(begin + seed, 1 << 20), "changed on the way, in the MiB at {begin}");
        }
        assert_eq!(socket.read(&mut part).await.unwrap(), 0);
    }
}

/// One busy direction must not keep the other one, or another flow, waiting. One thread serves all of it.
#[tokio::test]
async fn a_busy_flow_leaves_room_for_others() {
    within(async {
        let busy = Flow::open().await;
        let (mut source, mut sink) = (busy.client.into_split(), busy.origin.into_split());
        let send = tokio::spawn(async move {
            let bytes = vec![0; 1 << 20];
            while source.1.write_all(&bytes).await.is_ok() {}
        });
        let receive = tokio::spawn(async move {
            let mut bytes = vec![0; 1 << 20];
            while sink.0.read(&mut bytes).await.is_ok_and(|length| length > 0) {}
        });
        let mut other = Flow::open().await;
        for _ in 0..100 {
            sink.1.write_all(b"back").await.unwrap();
            expect_half(&mut source.0, b"back").await;
            other.client.write_all(b"ping").await.unwrap();
            expect(&mut other.origin, b"ping").await;
        }
        send.abort();
        receive.abort();
    })
    .await;
}

#[tokio::test]
async fn urgent_data_is_not_lost() {
    within(async {
        let mut flow = Flow::open().await;
        // The relay takes its socket over when it first runs; before that the kernel would keep the byte apart.
        flow.client.write_all(b"a").await.unwrap();
        expect(&mut flow.origin, b"a").await;
        assert_eq!(SockRef::from(&flow.client).send_out_of_band(b"!").unwrap(), 1);
        flow.client.write_all(b"b").await.unwrap();
        expect(&mut flow.origin, b"!b").await;
    })
    .await;
}

struct Flow {
    client: TcpStream,
    origin: TcpStream,
    relay: JoinHandle<Relayed>,
}

impl Flow {
    async fn open() -> Self {
        Self::between(None, |_: &[u8]| {}).await
    }

    /// With buffers of a known size.
    async fn small() -> Self {
        Self::between(Some(SMALL), |_: &[u8]| {}).await
    }

    async fn observed(observe: impl FnMut(&[u8]) + Send + 'static) -> Self {
        Self::between(None, observe).await
    }

    async fn between(buffers: Option<usize>, observe: impl FnMut(&[u8]) + Send + 'static) -> Self {
        let (client, accepted) = pair(buffers).await;
        let (onward, origin) = pair(buffers).await;
        Self { client, origin, relay: tokio::spawn(relay(accepted, onward, observe)) }
    }

    async fn close(mut self) -> (u64, u64) {
        self.client.shutdown().await.unwrap();
        assert_eq!(read_to_end(&mut self.origin).await.unwrap(), b"");
        self.origin.shutdown().await.unwrap();
        assert_eq!(read_to_end(&mut self.client).await.unwrap(), b"");
        self.ended().await
    }

    /// The relay's sockets are closed by then, so a reset of theirs would have arrived.
    async fn ended(self) -> (u64, u64) {
        let Relayed { to_server, to_client, end } = self.relay.await.unwrap();
        assert!(matches!(end, End::Closed), "{end:?}");
        assert!(self.client.take_error().unwrap().is_none() && self.origin.take_error().unwrap().is_none());
        (to_server, to_client)
    }
}

/// A connected pair over loopback: who connected, who accepted.
async fn pair(buffers: Option<usize>) -> (TcpStream, TcpStream) {
    let (listening, connecting) = (TcpSocket::new_v4().unwrap(), TcpSocket::new_v4().unwrap());
    for socket in buffers.is_some().then_some([&listening, &connecting]).into_iter().flatten() {
        socket.set_send_buffer_size(SMALL as u32).unwrap();
        socket.set_recv_buffer_size(SMALL as u32).unwrap();
    }
    listening.bind("127.0.0.1:0".parse::<SocketAddr>().unwrap()).unwrap();
    let listener = listening.listen(1).unwrap();
    let address = listener.local_addr().unwrap();
    let (connected, accepted) = tokio::join!(connecting.connect(address), listener.accept());
    let (connected, (accepted, _)) = (connected.unwrap(), accepted.unwrap());
    connected.set_nodelay(true).unwrap();
    accepted.set_nodelay(true).unwrap();
    (connected, accepted)
}

/// Sends until nothing has been taken for a while; returns how much was. Never more than a bound, so that it ends.
async fn fill(socket: &TcpStream) -> usize {
    let mut sent = 0;
    while sent < 64 << 20 {
        match socket.try_write(&pattern(sent, 4096)) {
            Ok(taken) => sent += taken,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if timeout(Duration::from_millis(300), socket.writable()).await.is_err() {
                    break;
                }
            }
            Err(error) => panic!("{error}"),
        }
    }
    sent
}

fn pattern(begin: usize, length: usize) -> Vec<u8> {
    // 251 is prime: a piece that is missing or comes twice is seen whatever its length, unless that is a multiple.
    (begin..begin + length).map(|index| (index % 251) as u8).collect()
}

fn reset(socket: TcpStream) {
    SockRef::from(&socket).set_linger(Some(Duration::ZERO)).unwrap();
}

async fn expect(socket: &mut TcpStream, bytes: &[u8]) {
    let mut received = vec![0; bytes.len()];
    socket.read_exact(&mut received).await.unwrap();
    assert_eq!(received, bytes);
}

async fn expect_half(socket: &mut tokio::net::tcp::OwnedReadHalf, bytes: &[u8]) {
    let mut received = vec![0; bytes.len()];
    socket.read_exact(&mut received).await.unwrap();
    assert_eq!(received, bytes);
}

async fn read_to_end(socket: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut received = Vec::new();
    socket.read_to_end(&mut received).await.map(|_| received)
}

/// A hang is a failure.
async fn within<T>(work: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(30), work).await.expect("no end in 30 s")
}

const SMALL: usize = 64 << 10;
