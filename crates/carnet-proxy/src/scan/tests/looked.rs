//! What is looked at, and what becomes of it.

use super::*;
use crate::scan::{Act, Finding};

#[tokio::test]
async fn a_body_that_does_not_match_passes_as_it_is() {
    let (scanner, told) = scanner(Words(&["marker"]), short());
    let body: Vec<u8> = (0..1000_u32).flat_map(u32::to_le_bytes).collect();
    assert_eq!(send(&scanner, None, body.chunks(7)).await, pass(body));
    assert_eq!(send(&scanner, None, []).await, pass([]));
    assert!(told.lock().unwrap().is_empty());
}

#[tokio::test]
async fn nothing_of_a_short_body_that_matches_passes() {
    let (scanner, told) = scanner(Words(&["marker"]), short());
    let passed = send(&scanner, None, [b"a mar".as_slice(), b"ker", b" and more"]).await;
    assert_eq!(passed, Passed { bytes: Vec::new(), blocked: Some("YARA rule words matches".into()) });
    let told = told.lock().unwrap();
    let [report] = told.as_slice() else { panic!("{told:?}") };
    assert_eq!((report.flow_id, report.uid, report.blocked), (7, Some(1000), true));
    assert_eq!((report.method.as_str(), report.url.as_str()), ("GET", "https://example.org/a"));
    assert!(matches!(&report.finding, Finding::Match(found) if found.rule == "words"), "{report:?}");
}

#[tokio::test]
async fn a_long_body_is_cut_off_before_what_matches() {
    let (scanner, _) = scanner(Words(&["marker"]), short());
    let body = [&[b'.'; 500], b"marker".as_slice(), &[b'.'; 500]].concat();
    let passed = send(&scanner, None, body.chunks(10)).await;
    assert!(passed.blocked.is_some());
    assert!(passed.bytes.len() > 400 && passed.bytes.len() <= 500, "{}", passed.bytes.len());
}

#[tokio::test]
async fn only_a_body_that_is_held_is_one_piece() {
    let (scanner, _) = scanner(Words(&["one", "two"]), short());
    let body = |blanks| [b"one".as_slice(), &vec![b'.'; blanks], b"two"].concat();
    assert!(send(&scanner, None, [body(58).as_slice()]).await.blocked.is_some());
    // This is longer than the first window, and what is between them longer than the overlap.
    assert!(send(&scanner, None, [body(59).as_slice()]).await.blocked.is_none());
}

#[tokio::test]
async fn logged_only_it_passes_and_is_told_of_once() {
    let (scanner, told) = scanner(Words(&["marker"]), ScanOptions { on_match: Act::Log, ..short() });
    let body = b"marker ".repeat(100);
    assert_eq!(send(&scanner, None, body.chunks(9)).await, pass(body));
    let told = told.lock().unwrap();
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(!told[0].blocked);
}

#[tokio::test]
async fn other_rules_hold_for_bodies_that_begin_after() {
    let (scanner, _) = scanner(Words(&["old"]), short());
    assert!(send(&scanner, None, [b"new".as_slice()]).await.blocked.is_none());
    scanner.replace(Arc::new(Words(&["new"])));
    assert!(send(&scanner, None, [b"new".as_slice()]).await.blocked.is_some());
    assert!(send(&scanner, None, [b"old".as_slice()]).await.blocked.is_none());
}

#[tokio::test]
async fn what_is_there_passes_when_nothing_comes_for_a_while() {
    let (scanner, _) = scanner(Words(&["one", "two"]), short());
    let facts = BodyFacts::new(Direction::Response, 1, SocketAddr::from((Ipv4Addr::LOCALHOST, 1)));
    let mut scan = scanner.begin(&facts).unwrap();
    let data = |text: &'static str| Part::Data(Bytes::from_static(text.as_bytes()));
    for (part, expected) in [
        (data("on"), Verdict::Hold),
        (Part::Quiet, Verdict::Pass),
        (data("e............................"), Verdict::Hold),
        (Part::Quiet, Verdict::Pass),
        (data("tw"), Verdict::Hold),
        (data("o"), Verdict::Hold),
        (Part::Quiet, Verdict::Pass),
    ] {
        let (verdict, again) = scan.next(part).await;
        assert_eq!(verdict, expected);
        scan = again;
    }
    // The rule's words are too far from each other for what is looked at in between.
    assert!(matches!(scan.next(Part::End).await.0, Verdict::Block { .. }));
}
