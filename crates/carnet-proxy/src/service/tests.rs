//! The service over loopback. What the kernel's records say is for the end-to-end tests; here a fixed answer stands in
//! for them, and the connections on both sides are real.

mod limits;

use std::{io, net::SocketAddr, time::Duration};

use carnet::ErrorKind;
use socket2::SockRef;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream},
    sync::{mpsc, oneshot},
    task::JoinHandle,
    time::timeout,
};

use super::{
    Options, Service, Summary,
    route::{Recorded, Route, Routes},
};
use crate::{Error, Name, Report, channel};

#[tokio::test]
async fn without_an_engine_connections_are_reset_and_said_to_be() {
    let mut running = Running::start(Recorded, Options::default());
    for address in running.addresses.clone() {
        let mut client = TcpStream::connect(address).await.unwrap();
        assert_eq!(read_error(&mut client).await, io::ErrorKind::ConnectionReset);
        match running.report().await {
            Report::Unredirected { peer, error } => {
                assert_eq!((peer, error.kind()), (client.local_addr().unwrap(), ErrorKind::NoEngine));
            }
            report => panic!("{report:?}"),
        }
    }
    assert_eq!(running.stop().await, Summary { accepted: 2, cut_off: 0, ..Summary::default() });
}

#[tokio::test]
async fn a_flow_is_relayed_and_its_name_reported() {
    let origin = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut running = Running::start(Fixed(origin.local_addr().unwrap()), Options::default());
    let mut client = TcpStream::connect(running.addresses[1]).await.unwrap();
    let (mut server, _) = origin.accept().await.unwrap();

    client.write_all(b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n").await.unwrap();
    client.shutdown().await.unwrap();
    assert_eq!(read_to_end(&mut server).await.len(), 35);
    server.write_all(b"answer").await.unwrap();
    drop(server);
    assert_eq!(read_to_end(&mut client).await, b"answer");
    match running.report().await {
        Report::Name { flow_id: 7, depth: 2, found } => assert_eq!(found.name, Some(Name::Host("a.example".into()))),
        report => panic!("{report:?}"),
    }
    assert_eq!(running.stop().await, Summary { accepted: 1, cut_off: 0, ..Summary::default() });
}

#[tokio::test]
async fn a_refusal_is_passed_on_as_a_reset() {
    // Bound and not listening: the port refuses, and nobody else can take it meanwhile.
    let refusing = TcpSocket::new_v4().unwrap();
    refusing.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let mut running = Running::start(Fixed(refusing.local_addr().unwrap()), Options::default());

    let mut client = TcpStream::connect(running.addresses[0]).await.unwrap();
    assert_eq!(read_error(&mut client).await, io::ErrorKind::ConnectionReset);
    match running.report().await {
        Report::Refused { flow_id: 7, depth: 2, destination, error } => {
            assert_eq!(destination, refusing.local_addr().unwrap());
            assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        }
        report => panic!("{report:?}"),
    }
}

#[tokio::test]
async fn a_record_that_cannot_be_set_ends_the_flow() {
    struct Unset(SocketAddr);
    impl Routes for Unset {
        fn route(&self, accepted: &TcpStream) -> Result<Route, carnet::Error> {
            Fixed(self.0).route(accepted)
        }
        fn carry(&self, accepted: &TcpStream, onward: &TcpSocket) -> Result<(), carnet::Error> {
            Recorded.carry(accepted, onward)
        }
    }
    let origin = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut running = Running::start(Unset(origin.local_addr().unwrap()), Options::default());
    let mut client = TcpStream::connect(running.addresses[0]).await.unwrap();
    assert_eq!(read_error(&mut client).await, io::ErrorKind::ConnectionReset);
    match running.report().await {
        Report::Refused { error, .. } => {
            let cause = error.get_ref().and_then(|error| error.downcast_ref::<carnet::Error>());
            assert_eq!(cause.map(carnet::Error::kind), Some(ErrorKind::NoEngine));
        }
        report => panic!("{report:?}"),
    }
    // Without its record it must not have connected at all; a connection made now is the first one to come.
    let first = TcpStream::connect(origin.local_addr().unwrap()).await.unwrap();
    assert_eq!(origin.accept().await.unwrap().1, first.local_addr().unwrap());
}

#[tokio::test]
async fn a_destination_that_does_not_answer_is_given_up_in_time() {
    let silent = Silent::new().await;
    let limit = Some(Duration::from_millis(100));
    let mut running = Running::start(Fixed(silent.address), Options { connect_timeout: limit, ..Options::default() });
    let mut client = TcpStream::connect(running.addresses[0]).await.unwrap();
    assert_eq!(read_error(&mut client).await, io::ErrorKind::ConnectionReset);
    match running.report().await {
        Report::Refused { error, .. } => assert_eq!(error.kind(), io::ErrorKind::TimedOut),
        report => panic!("{report:?}"),
    }
}

#[tokio::test]
async fn a_client_that_resets_ends_the_dialling() {
    struct Told(SocketAddr, mpsc::UnboundedSender<()>);
    impl Routes for Told {
        fn route(&self, accepted: &TcpStream) -> Result<Route, carnet::Error> {
            Fixed(self.0).route(accepted)
        }
        fn carry(&self, _: &TcpStream, _: &TcpSocket) -> Result<(), carnet::Error> {
            self.1.send(()).unwrap();
            Ok(())
        }
    }
    let silent = Silent::new().await;
    let (told, mut dialled) = mpsc::unbounded_channel();
    let options = Options { drain: Duration::from_secs(60), ..Options::default() };
    let mut running = Running::start(Told(silent.address, told), options);
    let client = TcpStream::connect(running.addresses[0]).await.unwrap();
    within(dialled.recv()).await.unwrap();
    SockRef::from(&client).set_linger(Some(Duration::ZERO)).unwrap();
    drop(client);
    assert_eq!(running.stop().await, Summary { accepted: 1, cut_off: 0, ..Summary::default() });
}

#[tokio::test]
async fn more_flows_than_may_be_wait_their_turn() {
    let origin = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let options = Options { max_flows: Some(1), ..Options::default() };
    let mut running = Running::start(Fixed(origin.local_addr().unwrap()), options);
    let mut flows = Vec::new();
    for _ in 0..3 {
        flows.push(TcpStream::connect(running.addresses[0]).await.unwrap());
    }
    for (index, mut client) in flows.into_iter().enumerate() {
        let (mut server, _) = origin.accept().await.unwrap();
        client.write_all(&[index as u8]).await.unwrap();
        assert_eq!(server.read_u8().await.unwrap(), index as u8, "in the order in which they came");
        let next = timeout(Duration::from_millis(100), origin.accept());
        assert!(next.await.is_err(), "a second flow was served beside the only one allowed");
    }
    assert!(matches!(running.report().await, Report::Full { flows: 1 }));
    assert_eq!(running.stop().await.accepted, 3);
    assert!(running.reports.recv().await.is_none(), "said more than once");
}

#[tokio::test]
async fn after_shutdown_flows_may_end_and_new_ones_are_refused() {
    let origin = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let options = Options { drain: Duration::from_secs(60), ..Options::default() };
    let mut running = Running::start(Fixed(origin.local_addr().unwrap()), options);
    let mut client = TcpStream::connect(running.addresses[0]).await.unwrap();
    let (mut server, _) = origin.accept().await.unwrap();

    running.shut_down();
    while let Ok(late) = TcpStream::connect(running.addresses[0]).await {
        drop(late); // the service has not heard yet
        tokio::task::yield_now().await;
    }
    client.write_all(b"late").await.unwrap();
    client.shutdown().await.unwrap();
    assert_eq!(read_to_end(&mut server).await, b"late");
    drop(server);
    assert_eq!(read_to_end(&mut client).await, b"");
    assert_eq!(running.stop().await.cut_off, 0);
}

#[tokio::test]
async fn flows_that_do_not_end_in_time_are_reset() {
    let origin = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let options = Options { drain: Duration::from_millis(50), ..Options::default() };
    let mut running = Running::start(Fixed(origin.local_addr().unwrap()), options);
    let mut client = TcpStream::connect(running.addresses[0]).await.unwrap();
    let (mut server, _) = origin.accept().await.unwrap();
    client.write_all(b"x").await.unwrap();
    assert_eq!(server.read_u8().await.unwrap(), b'x');

    assert_eq!(running.stop().await, Summary { accepted: 1, cut_off: 1, ..Summary::default() });
    for socket in [&mut client, &mut server] {
        assert_eq!(read_error(socket).await, io::ErrorKind::ConnectionReset);
    }
}

#[test]
fn what_cannot_be_listened_on_is_said() {
    assert!(matches!(Service::bind(&[], Options::default()), Err(Error::NoListener)));
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    match Service::bind(&[address], Options::default()) {
        Err(Error::Bind { address: named, source }) => {
            assert_eq!((named, source.kind()), (address, io::ErrorKind::AddrInUse));
        }
        result => panic!("{result:?}"),
    }
}

/// Every flow is number 7, at its second redirect, and goes to one place.
struct Fixed(SocketAddr);

impl Routes for Fixed {
    fn route(&self, _: &TcpStream) -> Result<Route, carnet::Error> {
        Ok(Route { flow_id: 7, depth: 2, destination: self.0 })
    }

    fn carry(&self, _: &TcpStream, _: &TcpSocket) -> Result<(), carnet::Error> {
        Ok(())
    }
}

struct Running {
    addresses: Vec<SocketAddr>,
    reports: mpsc::Receiver<Report>,
    shutdown: Option<oneshot::Sender<()>>,
    service: JoinHandle<Result<Summary, Error>>,
}

impl Running {
    fn start(routes: impl Routes, options: Options) -> Self {
        let loopback = ["127.0.0.1:0", "[::1]:0"].map(|address| address.parse().unwrap());
        let service = Service::bind(&loopback, options).unwrap();
        let addresses = service.addresses().unwrap();
        let (reporter, reports) = channel(100);
        let (shutdown, told) = oneshot::channel();
        let run = service.run_with(routes, reporter, async {
            let _ = told.await;
        });
        Self { addresses, reports, shutdown: Some(shutdown), service: tokio::spawn(run) }
    }

    async fn report(&mut self) -> Report {
        within(self.reports.recv()).await.expect("the service runs")
    }

    fn shut_down(&mut self) {
        drop(self.shutdown.take());
    }

    async fn stop(&mut self) -> Summary {
        self.shut_down();
        within(&mut self.service).await.unwrap().unwrap()
    }
}

/// An address that answers no SYN: its listener's queue is full.
struct Silent {
    address: SocketAddr,
    _listener: TcpListener,
    _queue: Vec<JoinHandle<io::Result<TcpStream>>>,
}

impl Silent {
    async fn new() -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = socket.listen(1).unwrap();
        let address = listener.local_addr().unwrap();
        let mut queue = Vec::new();
        for _ in 0..16 {
            let mut waiting = tokio::spawn(TcpStream::connect(address));
            if timeout(Duration::from_millis(100), &mut waiting).await.is_err() {
                queue.push(waiting);
                return Self { address, _listener: listener, _queue: queue };
            }
            // A queue keeps its entries when the connections are closed.
        }
        panic!("a queue of 1 is not full after 16 connections");
    }
}

async fn read_error(socket: &mut TcpStream) -> io::ErrorKind {
    within(socket.read(&mut [0; 100])).await.expect_err("a reset").kind()
}

async fn read_to_end(socket: &mut TcpStream) -> Vec<u8> {
    let mut received = Vec::new();
    within(socket.read_to_end(&mut received)).await.unwrap();
    received
}

/// A hang is a failure.
async fn within<T>(work: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(30), work).await.expect("no end in 30 s")
}
