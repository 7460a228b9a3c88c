//! Limits. A connection from 127.0.0.N is user N's here.

use std::net::IpAddr;

use super::*;
use crate::{Limit, Limits, rules::Rate};

/// The destination of all.
struct Whoever(SocketAddr);

impl Routes for Whoever {
    fn route(&self, accepted: &TcpStream) -> Result<Route, carnet::Error> {
        Fixed(self.0).route(accepted)
    }

    fn carry(&self, accepted: &TcpStream, onward: &TcpSocket) -> Result<(), carnet::Error> {
        Fixed(self.0).carry(accepted, onward)
    }

    fn uid(&self, accepted: &TcpStream) -> Option<u32> {
        match accepted.peer_addr().ok()?.ip() {
            IpAddr::V4(ip) => Some(ip.octets()[3].into()),
            IpAddr::V6(_) => None,
        }
    }
}

struct Limited {
    origin: TcpListener,
    running: Running,
}

impl Limited {
    async fn to(limits: Limits) -> Self {
        let origin = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let routes = Whoever(origin.local_addr().unwrap());
        Self { origin, running: Running::start(routes, Options { limits, ..Options::default() }) }
    }

    async fn connect_as(&self, user: u8) -> TcpStream {
        let client = TcpSocket::new_v4().unwrap();
        client.bind(SocketAddr::from(([127, 0, 0, user], 0))).unwrap();
        within(client.connect(self.running.addresses[0])).await.unwrap()
    }

    async fn accept(&self) -> TcpStream {
        within(self.origin.accept()).await.unwrap().0
    }
}

#[tokio::test]
async fn who_has_as_many_as_may_be_is_reset_and_nobody_else() {
    let mut limited = Limited::to(Limits { flows_per_user: Some(2), ..Limits::default() }).await;
    let mut held = Vec::new();
    for user in [1, 1, 2] {
        held.push((limited.connect_as(user).await, limited.accept().await));
    }
    for round in 0..3 {
        let mut over = limited.connect_as(1).await;
        assert_eq!(read_error(&mut over).await, io::ErrorKind::ConnectionReset, "{round}");
    }
    match limited.running.report().await {
        Report::OverLimit { limit: Limit::FlowsPerUser, uid: Some(1), connections: 1 } => {}
        report => panic!("{report:?}"),
    }
    held.push((limited.connect_as(2).await, limited.accept().await));
    drop(held);
    assert_eq!(limited.running.stop().await, Summary { accepted: 7, over_limits: 3, cut_off: 0 });
}

#[tokio::test]
async fn who_is_early_waits_and_is_served_at_the_end_at_the_latest() {
    let rate = Rate { flows: 1, period: Duration::from_secs(3600), burst: 1 };
    let mut limited = Limited::to(Limits { rate: Some(rate), ..Limits::default() }).await;
    let first = (limited.connect_as(1).await, limited.accept().await);
    let second = limited.connect_as(1).await;
    assert!(matches!(limited.running.report().await, Report::RateReached { rate: told } if told == rate));
    limited.running.shut_down();
    let accepted = limited.accept().await;
    drop((first, second, accepted));
    assert_eq!(limited.running.stop().await, Summary { accepted: 2, over_limits: 0, cut_off: 0 });
}

#[tokio::test]
async fn a_rate_lets_all_through_in_time() {
    let rate = Rate { flows: 50, period: Duration::from_secs(1), burst: 1 };
    let mut limited = Limited::to(Limits { rate: Some(rate), ..Limits::default() }).await;
    for _ in 0..10 {
        drop((limited.connect_as(1).await, limited.accept().await));
    }
    assert_eq!(limited.running.stop().await, Summary { accepted: 10, over_limits: 0, cut_off: 0 });
}
