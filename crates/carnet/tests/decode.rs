//! The decoders against arbitrary bytes, and against what an engine writes.
#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::{net::SocketAddr, time::Duration};

use carnet::{ErrorKind, Executable, Family, Flow, MAX_HOPS, RECORDS_MAX, Records};
use carnet_abi::{ABI_VERSION, ORIGIN_AMBIGUOUS, ORIGIN_INFERRED};
use proptest::{collection::vec, prelude::*};
use zerocopy::{FromBytes, IntoBytes};

const FLOW_SIZE: usize = size_of::<carnet_abi::Flow>();

proptest! {
    #[test]
    fn arbitrary_bytes_are_a_flow_or_malformed(bytes in vec(any::<u8>(), 0..2 * FLOW_SIZE)) {
        check_flow(&bytes)?;
    }

    /// Arbitrary bytes are hardly ever a flow: here the header and the family are.
    #[test]
    fn nearly_flows_are_a_flow_or_malformed(
        bytes in vec(any::<u8>(), FLOW_SIZE..2 * FLOW_SIZE),
        version in 0..4_u16,
        size in FLOW_SIZE - 2..FLOW_SIZE + 3,
        depth in 0..MAX_HOPS + 3,
        family in prop_oneof![4 => Just(2_u8), 4 => Just(10_u8), 2 => Just(23_u8), 1 => any::<u8>()],
    ) {
        let mut bytes = bytes;
        let (flow, _) = carnet_abi::Flow::mut_from_prefix(&mut bytes).unwrap();
        flow.version = version;
        flow.size = u16::try_from(size).unwrap();
        flow.depth = u32::try_from(depth).unwrap();
        flow.origin.family = family;
        check_flow(&bytes)?;
    }

    #[test]
    fn every_field_comes_back(flow in flows(), later_fields in vec(any::<u8>(), 0..64)) {
        let mut bytes = flow.as_bytes().to_vec();
        let decoded = Flow::from_bytes(&bytes).unwrap();

        prop_assert_eq!(decoded.id() as u64, flow.flow[0]);
        prop_assert_eq!((decoded.id() >> 64) as u64, flow.flow[1]);
        prop_assert_eq!(decoded.destination(), flow.remote.to_socket_addr());
        prop_assert_eq!(decoded.depth(), flow.depth as usize);
        prop_assert_eq!(decoded.chain().len(), decoded.depth());
        for (decoded, hop) in decoded.chain().iter().zip(&flow.chain) {
            prop_assert_eq!(decoded.handle, hop.handle);
            prop_assert_eq!(decoded.filter.unwrap_or(0), hop.filter);
            prop_assert_eq!(decoded.time, Duration::from_nanos(hop.time));
        }

        let (decoded_origin, origin) = (decoded.origin(), &flow.origin);
        prop_assert_eq!(decoded_origin.destination, origin.remote.to_socket_addr());
        prop_assert_eq!(decoded_origin.time, Duration::from_nanos(origin.time));
        prop_assert_eq!(decoded_origin.start_time, Duration::from_nanos(origin.start_time));
        prop_assert_eq!(
            (decoded_origin.pid, decoded_origin.uid, decoded_origin.gid, decoded_origin.cgroup_id),
            (origin.pid, origin.uid, origin.gid, origin.cgroup_id)
        );
        prop_assert_eq!(decoded_origin.netns_cookie, origin.netns_cookie);
        prop_assert_eq!(decoded_origin.exe, Executable { device: origin.exe_dev, inode: origin.exe_ino });
        prop_assert_eq!(decoded_origin.bound_interface.unwrap_or(0), origin.ifindex);
        prop_assert_eq!(decoded_origin.family == Family::V6, origin.family != 2);
        prop_assert_eq!(decoded_origin.inferred, origin.flags & ORIGIN_INFERRED != 0);
        prop_assert_eq!(decoded_origin.ambiguous, origin.flags & ORIGIN_AMBIGUOUS != 0);

        // A newer engine's answer is longer, and says so.
        bytes.extend(&later_fields);
        let size = u16::try_from(bytes.len()).unwrap();
        bytes[2..4].copy_from_slice(&size.to_ne_bytes());
        prop_assert_eq!(Flow::from_bytes(&bytes).unwrap(), decoded);
    }

    #[test]
    fn records_keep_their_bytes(contents in vec(any::<u8>(), 0..RECORDS_MAX.min(700) - 4), version in any::<u16>()) {
        let bytes = records(version, &contents);
        let decoded = Records::from_bytes(&bytes).unwrap();
        prop_assert_eq!(decoded.as_bytes(), &bytes);
    }

    /// Windows' blob has no form that is told.
    #[cfg(target_os = "linux")]
    #[test]
    fn records_of_a_wrong_length_are_malformed(contents in vec(any::<u8>(), 0..700), change in -8..8_isize) {
        let mut bytes = records(ABI_VERSION, &contents);
        let length = bytes.len().saturating_add_signed(change);
        bytes.resize(length, 0);

        let fits = (4..=RECORDS_MAX).contains(&length) && (change == 0);
        match Records::from_bytes(&bytes) {
            Ok(_) => prop_assert!(fits),
            Err(error) => {
                prop_assert!(!fits, "{error:#}");
                prop_assert_eq!(error.kind(), ErrorKind::Malformed);
            }
        }
    }
}

#[test]
fn records_have_a_maximum() {
    let longer = records(ABI_VERSION, &vec![0; RECORDS_MAX - 3]);
    assert_eq!(Records::from_bytes(&longer).unwrap_err().kind(), ErrorKind::Malformed);
    assert_eq!(Records::from_bytes(&[]).unwrap_err().kind(), ErrorKind::Malformed);
}

#[test]
fn a_shorter_answer_is_malformed_at_every_length() {
    let flow = example();
    for length in 0..FLOW_SIZE {
        let error = Flow::from_bytes(&flow.as_bytes()[..length]).unwrap_err();
        assert_eq!((error.kind(), error.os_error()), (ErrorKind::Malformed, None), "{length} bytes");
    }
    assert!(Flow::from_bytes(flow.as_bytes()).is_ok());
}

#[test]
fn mapped_addresses_are_ipv4_and_an_unchosen_source_is_none() {
    let mut flow = example();
    let decoded = Flow::from_bytes(flow.as_bytes()).unwrap();
    assert_eq!(decoded.destination(), "192.0.2.7:443".parse().unwrap());
    assert_eq!(decoded.origin().source, None);
    assert_eq!(decoded.origin().comm, "curl");

    let port_only: SocketAddr = "0.0.0.0:9000".parse().unwrap();
    flow.origin.local = port_only.into();
    assert_eq!(Flow::from_bytes(flow.as_bytes()).unwrap().origin().source, Some(port_only));
    flow.origin.local = "0.0.0.0:0".parse::<SocketAddr>().unwrap().into();
    assert_eq!(Flow::from_bytes(flow.as_bytes()).unwrap().origin().source, None);
}

#[test]
fn any_name_of_a_process_is_shown() {
    let mut flow = example();
    flow.origin.comm = *b"sixteen bytes ok";
    assert_eq!(Flow::from_bytes(flow.as_bytes()).unwrap().origin().comm, "sixteen bytes ok");
    flow.origin.comm = *b"\xff\x1b[2J\0\0\0\0\0\0\0\0\0\0\0";
    assert_eq!(Flow::from_bytes(flow.as_bytes()).unwrap().origin().comm, "\u{fffd}\u{1b}[2J");
}

/// Accepted exactly if the layout says so; else `Malformed`, without an OS error.
fn check_flow(bytes: &[u8]) -> Result<(), TestCaseError> {
    let expected = match carnet_abi::Flow::read_from_prefix(bytes) {
        Ok((flow, _)) => {
            flow.version > 0
                && usize::from(flow.size) >= FLOW_SIZE
                && flow.depth as usize <= MAX_HOPS
                && [2, 10, 23].contains(&flow.origin.family)
        }
        Err(_) => false,
    };
    match Flow::from_bytes(bytes) {
        Ok(_) => prop_assert!(expected),
        Err(error) => {
            prop_assert!(!expected, "{error:#}");
            prop_assert_eq!((error.kind(), error.os_error()), (ErrorKind::Malformed, None));
        }
    }
    Ok(())
}

/// Every flow an engine of this version could write, and some it would not.
fn flows() -> impl Strategy<Value = carnet_abi::Flow> {
    let depth = 0..=u32::try_from(MAX_HOPS).unwrap();
    (vec(any::<u8>(), FLOW_SIZE), depth, prop_oneof![Just(2), Just(10), Just(23)], any::<bool>()).prop_map(
        |(bytes, depth, family, v4)| {
            let mut flow = carnet_abi::Flow::read_from_bytes(&bytes).unwrap();
            let header = example();
            (flow.version, flow.size, flow.depth, flow.origin.family) = (header.version, header.size, depth, family);
            if v4 {
                (flow.remote, flow.origin.remote) = (header.remote, header.origin.remote);
            }
            flow
        },
    )
}

fn example() -> carnet_abi::Flow {
    let destination: SocketAddr = "192.0.2.7:443".parse().unwrap();
    let mut flow = carnet_abi::Flow {
        version: ABI_VERSION,
        size: u16::try_from(FLOW_SIZE).unwrap(),
        depth: 1,
        remote: destination.into(),
        ..Default::default()
    };
    flow.origin.remote = destination.into();
    flow.origin.family = 2;
    flow.origin.comm[..4].copy_from_slice(b"curl");
    flow.chain[0] = carnet_abi::Hop { time: 1, handle: 1, filter: 1 };
    flow
}

fn records(version: u16, contents: &[u8]) -> Vec<u8> {
    let size = u16::try_from(4 + contents.len()).unwrap_or(u16::MAX);
    [&version.to_ne_bytes()[..], &size.to_ne_bytes(), contents].concat()
}
