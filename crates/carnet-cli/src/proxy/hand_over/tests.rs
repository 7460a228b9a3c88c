//! Both sides in one process. The command itself, under load, is for the end-to-end tests.

use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;

use tempfile::TempDir;

use super::channel::MOST_ALONG;
use super::*;

/// A process that runs, and can be taken over from.
struct Running {
    folder: TempDir,
    listeners: Vec<TcpListener>,
    offer: Offer,
    taken: oneshot::Receiver<i32>,
}

impl Running {
    fn with(count: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let listeners: Vec<_> = (0..count).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let offer = Offer::of(duplicates(&listeners));
        let (taken, is_taken) = oneshot::channel();
        let (first, before) = HandOver::begin(&folder.path().join("socket")).unwrap();
        assert!(before.is_empty() && first.before().is_none());
        first.complete(&offer, &Told::new(true), taken);
        Self { folder, listeners, offer, taken: is_taken }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("socket")
    }

    fn addresses(&self) -> Vec<SocketAddr> {
        self.listeners.iter().map(|listener| listener.local_addr().unwrap()).collect()
    }
}

fn duplicates(listeners: &[TcpListener]) -> Vec<OwnedFd> {
    listeners.iter().map(|listener| listener.as_fd().try_clone_to_owned().unwrap()).collect()
}

fn addresses(listeners: &[Listener]) -> Vec<SocketAddr> {
    listeners.iter().map(Listener::address).collect()
}

#[test]
fn all_listeners_are_passed_on_with_what_waits_in_them() {
    for count in [1, MOST_ALONG, MOST_ALONG + 1, 3 * MOST_ALONG - 1] {
        let mut running = Running::with(count);
        let there = running.addresses();
        let waiting = TcpStream::connect(there[count - 1]).unwrap();
        let (next, taken) = HandOver::begin(&running.path()).unwrap();
        assert_eq!((addresses(&taken), next.before()), (there, Some(process::id().cast_signed())));

        let (offer, (further, mut not_taken)) = (Offer::of(Vec::new()), oneshot::channel());
        next.complete(&offer, &Told::new(true), further);
        assert_eq!(running.taken.try_recv(), Ok(process::id().cast_signed()));
        assert!(not_taken.try_recv().is_err());
        // Nobody else has it any more.
        running.listeners.clear();
        let last = TcpListener::from(taken.into_iter().next_back().unwrap());
        assert_eq!(last.accept().unwrap().1, waiting.local_addr().unwrap());
    }
}

#[test]
fn who_goes_away_has_taken_nothing() {
    let mut running = Running::with(2);
    for _ in 0..3 {
        let (next, taken) = HandOver::begin(&running.path()).unwrap();
        assert_eq!(addresses(&taken), running.addresses());
        drop((next, taken));
    }
    assert!(running.taken.try_recv().is_err());
    assert_eq!(fs::read_dir(running.folder.path()).unwrap().count(), 1, "its socket alone");
}

#[test]
fn who_is_about_to_end_has_nothing() {
    let running = Running::with(2);
    let waits = Channel::connect(&running.path()).unwrap();
    running.offer.withdraw();
    assert!(!running.path().exists());
    assert!(ask(&waits).unwrap().is_empty());
    let (next, taken) = HandOver::begin(&running.path()).unwrap();
    assert!(taken.is_empty() && next.before().is_none());
    // And it has closed its duplicates.
    let there = running.addresses();
    drop(running.listeners);
    assert!(there.iter().all(|there| TcpStream::connect(there).is_err()));
}

#[test]
fn who_ends_after_it_was_taken_over_from_leaves_the_socket_of_the_next() {
    let running = Running::with(1);
    let (next, _taken) = HandOver::begin(&running.path()).unwrap();
    let (taken, _) = oneshot::channel();
    next.complete(&Offer::of(Vec::new()), &Told::new(true), taken);
    running.offer.withdraw();
    assert!(running.path().exists());
}

#[test]
fn what_is_not_understood_is_told_and_nothing_is_taken() {
    let mut running = Running::with(1);
    let channel = Channel::connect(&running.path()).unwrap();
    channel.send(Message::Serving, &[]).unwrap();
    assert!(channel.receive().is_err(), "it has not asked");
    let (next, _) = HandOver::begin(&running.path()).unwrap();
    drop(next);
    assert!(running.taken.try_recv().is_err());
}

#[test]
fn somebody_elses_socket_is_an_error_that_says_where() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("stream");
    let _other = UnixListener::bind(&path).unwrap();
    let error = format!("{:#}", HandOver::begin(&path).unwrap_err());
    assert!(error.contains("stream"), "{error}");

    let error = format!("{:#}", HandOver::begin(&folder.path().join("none/socket")).unwrap_err());
    assert!(error.contains("none/socket"), "{error}");
    let long = folder.path().join("x".repeat(200));
    let error = format!("{:#}", HandOver::begin(&long).unwrap_err());
    assert!(error.contains("cannot connect to"), "{error}");
}
