use std::io::{ErrorKind, Read};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use carnet_e2e::raw::{NOBODY, as_nobody};
use carnet_e2e::sockets::{PATIENCE, accept, assert_joined, is_idle, listen, until};
use nix::sys::signal::Signal;

use crate::site::{Site, get};

#[test]
fn a_flood_of_one_user_leaves_the_others_alone() {
    Site::with("", &["--max-flows-per-user", "4"], |mut site| {
        let server = listen("127.0.0.1:0");
        let to = server.local_addr().unwrap();
        let mut held: Vec<_> = (0..4).map(|_| (connect_as_nobody(&site, to), accept(&server))).collect();
        held.iter_mut().for_each(|(client, accepted)| assert_joined(client, accepted));

        // All at once; the whole process is an application meanwhile.
        let (over, refused) = (AtomicBool::new(false), AtomicU64::new(0));
        site.ground.within(&site.ground.app, || {
            let flood = || {
                while !over.load(Ordering::Relaxed) {
                    assert_reset(TcpStream::connect(to).unwrap());
                    refused.fetch_add(1, Ordering::Relaxed);
                }
            };
            thread::scope(|scope| {
                let floods = [(); 2].map(|()| scope.spawn(|| as_nobody(flood)));
                for _ in 0..100 {
                    assert!(get(site.origin.address).starts_with(b"HTTP/1.1 200 "));
                }
                until("a flood", || (refused.load(Ordering::Relaxed) > 100).then_some(()));
                over.store(true, Ordering::Relaxed);
                floods.into_iter().for_each(|flood| flood.join().unwrap());
            });
        });
        assert!(is_idle(&server), "what is over the limit goes nowhere");
        let said = site.said("limit");
        assert_eq!((&said["limit"], said["uid"].as_u64()), (&"flows-per-user".into(), Some(NOBODY.into())), "{said}");

        // One that ends makes room for one.
        held.pop();
        let mut again = until("a place", || {
            let client = connect_as_nobody(&site, to);
            client.set_nonblocking(true).unwrap();
            until("an end or a service", || match (client.peek(&mut [0]), is_reached(&server)) {
                (_, Some(accepted)) => Some(Some(accepted)),
                (Err(error), None) if error.kind() == ErrorKind::WouldBlock => None,
                _ => Some(None),
            })
            .map(|accepted| (client, accepted))
        });
        again.0.set_nonblocking(false).unwrap();
        assert_joined(&mut again.0, &mut again.1);
        drop((held, again));

        site.signal(Signal::SIGTERM);
        let ended = site.said("ended");
        assert!(ended["over_limits"].as_u64().unwrap() >= refused.into_inner(), "{ended}");
    });
}

#[test]
fn each_user_has_a_rate() {
    Site::with("", &["--max-rate-per-user", "1/h"], |mut site| {
        let server = listen("127.0.0.1:0");
        let to = server.local_addr().unwrap();
        let mut first = (connect_as_nobody(&site, to), accept(&server));
        assert_joined(&mut first.0, &mut first.1);
        assert_reset(connect_as_nobody(&site, to));
        let said = site.said("limit");
        assert_eq!((&said["limit"], said["uid"].as_u64()), (&"rate-per-user".into(), Some(NOBODY.into())), "{said}");
        let mut other = (site.connect_to(to), accept(&server));
        assert_joined(&mut other.0, &mut other.1);
    });
}

/// Nothing is lost by it: who is early waits, and has begun to be served when the service ends.
#[test]
fn what_comes_too_fast_waits() {
    Site::with("", &["--max-rate", "1/h", "--drain", "60"], |mut site| {
        let server = listen("127.0.0.1:0");
        let to = server.local_addr().unwrap();
        let mut first = (site.connect_to(to), accept(&server));
        assert_joined(&mut first.0, &mut first.1);
        let mut early = site.connect_to(to);
        let said = site.said("limit");
        assert_eq!((&said["limit"], said["uid"].is_null()), (&"rate".into(), true), "{said}");
        assert!(is_idle(&server));
        site.signal(Signal::SIGTERM);
        let mut accepted = accept(&server);
        assert_joined(&mut early, &mut accepted);
        drop((first, early, accepted));
        assert_eq!(site.said("ended")["cut_off"], 0);
    });
}

fn connect_as_nobody(site: &Site, to: SocketAddr) -> TcpStream {
    let stream = site.ground.within(&site.ground.app, || as_nobody(|| TcpStream::connect(to))).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

fn is_reached(server: &TcpListener) -> Option<TcpStream> {
    let (accepted, _) = server.accept().ok()?;
    accepted.set_nonblocking(false).unwrap();
    Some(accepted)
}

fn assert_reset(mut client: TcpStream) {
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    assert_eq!(client.read(&mut [0]).map_err(|error| error.kind()), Err(ErrorKind::ConnectionReset));
}
