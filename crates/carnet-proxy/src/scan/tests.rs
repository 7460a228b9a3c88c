mod any;
mod encoded;
mod limits;
mod looked;
#[cfg(feature = "yara")]
mod yara;

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;

use super::{BodyFacts, Direction, Match, Matcher, Part, Scan, ScanOptions, ScanReport, Scanner, Unscanned, Verdict};

/// A rule: all of its words are there.
#[derive(Debug)]
struct Words(&'static [&'static str]);

impl Matcher for Words {
    fn matches(&self, data: &[u8], _: Duration) -> Result<Vec<Match>, Unscanned> {
        let found = self.0.iter().all(|word| contains(data, word.as_bytes()));
        Ok(found.then(|| Match { rule: "words".into(), ..Match::default() }).into_iter().collect())
    }
}

fn contains(data: &[u8], word: &[u8]) -> bool {
    data.windows(word.len()).any(|window| window == word)
}

/// A scanner, and what it tells.
fn scanner(matcher: impl Matcher + 'static, options: ScanOptions) -> (Scanner, Arc<Mutex<Vec<ScanReport>>>) {
    let told: Arc<Mutex<Vec<ScanReport>>> = Arc::default();
    let tell = Arc::clone(&told);
    (Scanner::new(Arc::new(matcher), options, move |report| tell.lock().unwrap().push(report)), told)
}

/// Windows so short that a test's body has many.
fn short() -> ScanOptions {
    ScanOptions { hold: 64, step: 32, overlap: 16, ..ScanOptions::default() }
}

/// What became of a body.
#[derive(Debug, Eq, PartialEq)]
struct Passed {
    bytes: Vec<u8>,
    /// Why no more did.
    blocked: Option<String>,
}

/// Sends a body in pieces, as whoever opens flows does.
async fn send(scanner: &dyn Scan, encoding: Option<&str>, pieces: impl IntoIterator<Item = &[u8]>) -> Passed {
    let mut passed = Passed { bytes: Vec::new(), blocked: None };
    let mut held = Vec::new();
    let destination = SocketAddr::from((Ipv4Addr::LOCALHOST, 443));
    let facts = BodyFacts {
        uid: Some(1000),
        method: "GET",
        url: "https://example.org/a",
        content_encoding: encoding,
        ..BodyFacts::new(Direction::Response, 7, destination)
    };
    let mut scan = scanner.begin(&facts).unwrap();
    let pieces = pieces.into_iter().map(|piece| Part::Data(Bytes::copy_from_slice(piece)));
    for part in pieces.chain([Part::End]) {
        if let Part::Data(piece) = &part {
            held.extend_from_slice(piece);
        }
        let end = matches!(part, Part::End);
        let (verdict, again) = scan.next(part).await;
        scan = again;
        match verdict {
            Verdict::Hold if !end => {}
            Verdict::Hold | Verdict::Pass => passed.bytes.append(&mut held),
            Verdict::Block { reason } => {
                passed.blocked = Some(reason);
                break;
            }
        }
    }
    passed
}

fn pass(bytes: impl Into<Vec<u8>>) -> Passed {
    Passed { bytes: bytes.into(), blocked: None }
}
