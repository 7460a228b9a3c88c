//! Bodies of HTTP in whatever `Content-Encoding` they claim: nothing panics, and what does not match passes.
#![no_main]

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use carnet_proxy::scan::{
    Act, BodyFacts, Direction, Finding, Match, Matcher, Part, Scan, ScanOptions, Scanner, Unscanned, Verdict,
};

const ENCODINGS: &[&str] =
    &["gzip", "deflate", "br", "zstd", "gzip, x-gzip", "br,zstd", "deflate,identity ,deflate", "x"];

/// Rules that nothing matches.
#[derive(Debug)]
struct Nothing;

impl Matcher for Nothing {
    fn matches(&self, data: &[u8], _: Duration) -> Result<Vec<Match>, Unscanned> {
        assert!(data.len() <= FIRST);
        Ok(Vec::new())
    }
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let [encoding, length, body @ ..] = bytes else { return };
    let options = ScanOptions {
        on_unscanned: Act::Log,
        hold: FIRST,
        step: 512,
        overlap: 64,
        decoded: 1 << 20,
        threads: 1,
        ..ScanOptions::default()
    };
    let tell = |report: carnet_proxy::scan::ScanReport| {
        assert_eq!(report.finding, Finding::Unscanned(Unscanned::Length));
    };
    let scanner = Scanner::new(Arc::new(Nothing), options, tell);
    let mut facts = BodyFacts::new(Direction::Response, 1, SocketAddr::from((Ipv4Addr::LOCALHOST, 443)));
    facts.content_encoding = ENCODINGS.get(usize::from(*encoding) % ENCODINGS.len()).copied();
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(async {
        let mut scan = scanner.begin(&facts).expect("every body is scanned");
        for piece in body.chunks(usize::from(*length) + 1) {
            let (verdict, again) = scan.next(Part::Data(Bytes::copy_from_slice(piece))).await;
            assert!(matches!(verdict, Verdict::Hold | Verdict::Pass), "{verdict:?}");
            scan = again;
        }
        assert_eq!(scan.next(Part::End).await.0, Verdict::Pass);
    });
});

/// The longest piece there may be.
const FIRST: usize = 1024;
