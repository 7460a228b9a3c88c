//! Where it ends: time, memory, mistakes.

use super::*;
use crate::scan::{Act, Finding};

/// Rules that cannot be applied.
#[derive(Debug)]
struct Fails(Unscanned);

impl Matcher for Fails {
    fn matches(&self, _: &[u8], _: Duration) -> Result<Vec<Match>, Unscanned> {
        Err(self.0.clone())
    }
}

/// A library with a mistake.
#[derive(Debug)]
struct Panics;

impl Matcher for Panics {
    fn matches(&self, _: &[u8], _: Duration) -> Result<Vec<Match>, Unscanned> {
        panic!("a mistake")
    }
}

#[tokio::test]
async fn what_cannot_be_looked_at_is_blocked_or_passes_as_is_chosen() {
    let body = [b'.'; 300].as_slice();
    for (on_match, on_unscanned, blocked) in
        [(Act::Block, Act::Block, true), (Act::Block, Act::Log, false), (Act::Log, Act::Block, false)]
    {
        let options = ScanOptions { on_match, on_unscanned, ..short() };
        let (scanner, told) = scanner(Fails(Unscanned::Time), options);
        let passed = send(&scanner, None, body.chunks(10)).await;
        assert_eq!(passed.blocked.is_some(), blocked);
        assert_eq!(passed.bytes.len(), if blocked { 0 } else { 300 });
        let told = told.lock().unwrap();
        assert_eq!(told.len(), 1, "{told:?}");
        assert_eq!((&told[0].finding, told[0].blocked), (&Finding::Unscanned(Unscanned::Time), blocked));
    }
}

#[tokio::test]
async fn a_panic_is_no_pass() {
    let (scanner, told) = scanner(Panics, short());
    let passed = send(&scanner, None, [b"body".as_slice()]).await;
    assert_eq!((passed.bytes.len(), passed.blocked.is_some()), (0, true));
    assert!(matches!(told.lock().unwrap()[0].finding, Finding::Unscanned(Unscanned::Failed(_))));
}

#[tokio::test]
async fn without_memory_a_body_is_looked_at_piece_by_piece() {
    let (scanner, _) = scanner(Words(&["marker"]), ScanOptions { memory: 40, hold: 1 << 20, ..short() });
    let body = [&[b'.'; 100], b"marker".as_slice()].concat();
    let passed = send(&scanner, None, body.chunks(10)).await;
    assert!(passed.blocked.is_some());
    assert!(passed.bytes.len() >= 50 && passed.bytes.len() <= 100, "{}", passed.bytes.len());
    assert_eq!(send(&scanner, None, body[..100].chunks(10)).await, pass(&body[..100]));
}

#[tokio::test]
async fn memory_is_given_back() {
    let options = ScanOptions { memory: 1 << 20, hold: 100, ..short() };
    let (scanner, _) = scanner(Words(&["marker"]), options);
    let facts = BodyFacts::new(Direction::Request, 1, SocketAddr::from((Ipv4Addr::LOCALHOST, 1)));
    let left = || scanner.shared().memory.left();
    let mut scan = scanner.begin(&facts).unwrap();
    for _ in 0..25 {
        scan = scan.next(Part::Data(Bytes::from_static(b"0123456789"))).await.1;
        assert!(left() < 1 << 20, "it is not counted");
    }
    drop(scan);
    assert_eq!(left(), 1 << 20);
}
