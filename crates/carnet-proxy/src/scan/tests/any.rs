//! Any body in any pieces.

use proptest::prelude::*;

use super::{encoded::ENCODINGS, *};

proptest! {
    /// A pattern no longer than the overlap is found wherever it is, and never passes.
    #[test]
    fn a_pattern_is_found_wherever_it_is(
        (before, after) in (0..300_usize, 0..300_usize),
        lengths in pieces(),
    ) {
        let (scanner, _) = scanner(Words(&["0123456789abcdef"]), short());
        let clean = vec![b'.'; before + after];
        let mut marked = clean.clone();
        marked.splice(before..before, *b"0123456789abcdef");
        let passed = run(send(&scanner, None, cut(&marked, &lengths)));
        prop_assert!(passed.blocked.is_some());
        prop_assert!(!contains(&passed.bytes, b"0123456789abcdef"));
        prop_assert!(marked.starts_with(&passed.bytes));
        prop_assert_eq!(run(send(&scanner, None, cut(&clean, &lengths))), pass(clean));
    }

    /// Also where a rule wants more than one pattern, and where the body is encoded.
    #[test]
    fn pieces_make_no_difference(
        body in prop::collection::vec(prop_oneof![Just("."), Just("one"), Just("two"), Just("...")], 0..30),
        encoding in prop::option::of(0..ENCODINGS.len()),
        (first, second) in (pieces(), pieces()),
    ) {
        let body: String = body.into_iter().flat_map(|word| [word, "............"]).collect();
        let (name, body) = match encoding.map(|index| ENCODINGS[index]) {
            Some((name, encode)) => (Some(name), encode(body.as_bytes())),
            None => (None, body.into_bytes()),
        };
        let (scanner, _) = scanner(Words(&["one", "two"]), short());
        let first = run(send(&scanner, name, cut(&body, &first)));
        let second = run(send(&scanner, name, cut(&body, &second)));
        prop_assert_eq!(first.blocked.is_some(), second.blocked.is_some());
        if first.blocked.is_none() {
            prop_assert_eq!(&first.bytes, &body);
            prop_assert_eq!(&second.bytes, &body);
        }
    }

    /// Whatever is said of them.
    #[test]
    fn any_bytes_pass_as_they_are_where_nothing_matches(
        body in prop::collection::vec(any::<u8>(), 0..2000),
        encoding in "(gzip|deflate|br|zstd|x|,| ){0,4}",
        lengths in pieces(),
    ) {
        let (scanner, _) = scanner(Words(&["\u{1f600} is not in it"]), short());
        prop_assert_eq!(run(send(&scanner, Some(&encoding), cut(&body, &lengths))), pass(body));
    }
}

/// Lengths of pieces.
fn pieces() -> impl Strategy<Value = Vec<usize>> {
    prop::collection::vec(1..150_usize, 1..20)
}

/// Pieces of these lengths, over and over.
fn cut<'b>(mut body: &'b [u8], lengths: &[usize]) -> Vec<&'b [u8]> {
    let mut pieces = Vec::new();
    for &length in lengths.iter().cycle() {
        if body.is_empty() {
            break;
        }
        let (piece, rest) = body.split_at(length.min(body.len()));
        pieces.push(piece);
        body = rest;
    }
    pieces
}

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}
