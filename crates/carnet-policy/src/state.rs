use carnet_abi::{Hop, State};

/// The redirect state of a connection for the provider with `handle`: what the record's `chain` (oldest hop first,
/// only the hops in use) says about it.
///
/// The meanings are those of `FWPS_CONNECTION_REDIRECT_STATE`. Where a handle occurs twice in the chain, which only a
/// change of ranks under a live flow can bring about, the newest hop decides first.
pub fn state(chain: &[Hop], handle: u32) -> State {
    match chain.split_last() {
        None => State::NotRedirected,
        Some((newest, _)) if newest.handle == handle => State::RedirectedBySelf,
        Some((_, older)) if older.iter().any(|hop| hop.handle == handle) => State::PreviouslyRedirectedBySelf,
        Some(_) => State::RedirectedByOther,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_of_the_table() {
        for (chain, handle, expected) in [
            (&[][..], 1, State::NotRedirected),
            (&[1], 1, State::RedirectedBySelf),
            (&[1], 2, State::RedirectedByOther),
            (&[1, 2], 1, State::PreviouslyRedirectedBySelf),
            (&[1, 2], 2, State::RedirectedBySelf),
            (&[1, 2], 3, State::RedirectedByOther),
            (&[1, 2, 3], 2, State::PreviouslyRedirectedBySelf),
            (&[1, 2, 1], 1, State::RedirectedBySelf),
        ] {
            let chain: Vec<Hop> = chain.iter().map(|&handle| Hop { handle, ..Hop::default() }).collect();
            assert_eq!(state(&chain, handle), expected, "{chain:?} for {handle}");
        }
    }
}
