//! Control data in Windows' form: what is written is read, and no bytes are more than they are.
#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

use carnet::{
    ErrorKind, Flow,
    datagram::{
        Redirected,
        control::{self, Message},
    },
};
use proptest::{collection::vec, prelude::*};
use zerocopy::IntoBytes;

const IPV4: i32 = 0;
const IPV6: i32 = 41;
const RECORDS: i32 = 60;
const CONTEXT: i32 = 70;

proptest! {
    #[test]
    fn what_is_written_is_read(messages in vec((any::<i32>(), any::<i32>(), vec(any::<u8>(), 0..100)), 0..8)) {
        let messages: Vec<_> = messages.iter().map(|(level, kind, data)| message(*level, *kind, data)).collect();
        let control = control::encode(&messages);
        prop_assert_eq!(control.len() % size_of::<usize>(), 0);
        prop_assert_eq!(control::messages(&control).collect::<Vec<_>>(), messages);
    }

    /// A buffer that was too small holds the whole messages before the cut. Only the fill after the last may be
    /// missing.
    #[test]
    fn what_is_cut_off_is_not_read(lengths in vec(0..40_usize, 1..6), cut in 0..400_usize) {
        let bytes = [9; 40];
        let messages: Vec<_> = lengths.iter().map(|&length| message(IPV4, RECORDS, &bytes[..length])).collect();
        let control = control::encode(&messages);
        let cut = cut.min(control.len());

        let mut end = 0;
        let whole = lengths.iter().take_while(|&&length| {
            let fits = end + size_of::<usize>() + 8 + length <= cut;
            end = (end + size_of::<usize>() + 8 + length).next_multiple_of(size_of::<usize>());
            fits
        });
        let whole = whole.count();
        prop_assert_eq!(control::messages(&control[..cut]).collect::<Vec<_>>(), &messages[..whole]);
    }

    #[test]
    fn no_bytes_panic(
        mut bytes in vec(any::<u8>(), 0..200),
        length in prop_oneof![0..220_usize, usize::MAX - 20..=usize::MAX],
    ) {
        if let Some(first) = bytes.first_chunk_mut() {
            *first = length.to_ne_bytes();
        }
        let found: usize = control::messages(&bytes).map(|message| size_of::<usize>() + 8 + message.data.len()).sum();
        prop_assert!(found <= bytes.len());
        prop_assert!(control::messages(&bytes).count() <= bytes.len());
        drop(Redirected::from_control(&bytes));
    }

    /// Wherever the two are among other messages, at either level, and whatever is empty.
    #[test]
    fn records_and_context_are_found(
        own in vec(any::<u8>(), 0..50),
        level in prop_oneof![Just(IPV4), Just(IPV6)],
        before in vec((0..50_i32, 0..90_i32), 0..4),
        is_context_first in any::<bool>(),
    ) {
        let records = records();
        let context = [&Flow::CONTEXT_MAGIC, flow().as_bytes(), &own].concat();
        let is_one = |level, kind| [IPV4, IPV6].contains(&level) && [RECORDS, CONTEXT].contains(&kind);
        let others = before.iter().filter(|&&(level, kind)| !is_one(level, kind));
        let mut messages: Vec<_> = others.map(|&(level, kind)| message(level, kind, b"other")).collect();
        messages.extend([message(level, RECORDS, &[]), message(level, CONTEXT, &[])]);
        messages.extend([message(level, RECORDS, &records), message(level, CONTEXT, &context)]);
        if is_context_first {
            messages.reverse();
        }

        let redirected = Redirected::from_control(&control::encode(&messages)).unwrap();
        prop_assert_eq!(redirected.records().unwrap().as_bytes(), &records);
        prop_assert_eq!(redirected.flow().unwrap(), Flow::from_bytes(flow().as_bytes()).unwrap());
        prop_assert_eq!(redirected.context().unwrap(), (!own.is_empty()).then_some(&own[..]));
    }
}

#[test]
fn a_later_datagram_is_not_redirected() {
    for control in
        [vec![], control::encode(&[message(IPV4, 19, &[0; 8])]), control::encode(&[message(IPV4, RECORDS, &[])])]
    {
        let redirected = Redirected::from_control(&control).unwrap();
        assert_eq!(redirected, Redirected::default());
        assert_eq!((redirected.records(), redirected.context().unwrap()), (None, None));
        assert_eq!(redirected.flow().unwrap_err().kind(), ErrorKind::NotRedirected);
    }
}

#[test]
fn another_callouts_context_has_no_flow() {
    let control = control::encode(&[message(IPV6, RECORDS, &records()), message(IPV6, CONTEXT, b"its own")]);
    let redirected = Redirected::from_control(&control).unwrap();
    assert_eq!(redirected.context().unwrap(), Some(&b"its own"[..]));
    let error = redirected.flow().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NoFlow);
    assert_eq!(
        error.to_string(),
        "read the control data: the redirect context has no flow; read the filter's own bytes with context()"
    );

    let records_alone = control::encode(&[message(IPV4, RECORDS, &records())]);
    let redirected = Redirected::from_control(&records_alone).unwrap();
    assert_eq!(redirected.flow().unwrap_err().kind(), ErrorKind::NoFlow);
}

#[test]
fn a_broken_flow_is_malformed() {
    let broken = [&Flow::CONTEXT_MAGIC[..], &[1, 0, 255, 255]].concat();
    let redirected = Redirected::from_control(&control::encode(&[message(IPV4, CONTEXT, &broken)])).unwrap();
    assert_eq!(redirected.flow().unwrap_err().kind(), ErrorKind::Malformed);
    assert_eq!(redirected.context().unwrap_err().kind(), ErrorKind::Malformed);
}

#[test]
fn records_that_are_too_long_are_malformed() {
    let control = control::encode(&[message(IPV4, RECORDS, &vec![1; 65537])]);
    assert_eq!(Redirected::from_control(&control).unwrap_err().kind(), ErrorKind::Malformed);
}

fn message(level: i32, kind: i32, data: &[u8]) -> Message<'_> {
    Message { level, kind, data }
}

/// Of the engine's form, which Windows takes as well.
fn records() -> Vec<u8> {
    [&1_u16.to_ne_bytes()[..], &12_u16.to_ne_bytes(), &[7; 8]].concat()
}

fn flow() -> carnet_abi::Flow {
    let size = u16::try_from(size_of::<carnet_abi::Flow>()).unwrap();
    let mut flow = carnet_abi::Flow { version: 1, size, depth: 1, ..Default::default() };
    flow.origin.family = 2;
    flow
}
