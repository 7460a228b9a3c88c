//! What a SOCKS5 or HTTP proxy answers. The first byte chooses the protocol, the login, and how long the pieces are.
#![no_main]

use carnet_proxy::upstream::{Credentials, Error, Greeting, Kind, Target, Upstream};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Some((&choice, answer)) = bytes.split_first() else { return };
    let whole = hear(greeting(choice), answer, usize::MAX);
    let pieces = hear(greeting(choice), answer, usize::from(choice >> 2) + 1);
    match (whole, pieces) {
        (Ok(whole), Ok(pieces)) => assert_eq!(whole, pieces),
        (Err(whole), Err(pieces)) => assert_eq!(whole.io_kind(), pieces.io_kind()),
        // What is wrong in a line of HTTP without an end may be seen before the end is.
        (Err(Error::NotOne { .. }), Ok((_, false))) | (Ok((_, false)), Err(Error::NotOne { .. })) => {}
        different => panic!("{different:?}"),
    }
});

fn greeting(choice: u8) -> Greeting {
    let kind = if choice & 1 == 0 { Kind::Socks5 } else { Kind::HttpConnect };
    let credentials = (choice & 2 != 0).then(|| Credentials::new("me", "secret"));
    let upstream = Upstream::new(kind, ([192, 0, 2, 1], 1080).into(), credentials).expect("they fit");
    upstream.greeting(&Target::to(([198, 51, 100, 7], 443).into())).expect("an address")
}

/// Bytes that were taken, and whether the greeting was over then.
fn hear(mut greeting: Greeting, bytes: &[u8], piece: usize) -> Result<(usize, bool), Error> {
    let (mut taken, mut shown) = (0, 0);
    loop {
        greeting.to_send();
        if greeting.is_over() {
            return Ok((taken, true));
        }
        shown = bytes.len().min(shown.max(taken).saturating_add(piece));
        if shown == taken {
            return Ok((taken, false));
        }
        let now = greeting.receive(&bytes[taken..shown])?;
        assert!((1..=shown - taken).contains(&now), "it would wait for ever, or takes what is not there");
        taken += now;
    }
}
