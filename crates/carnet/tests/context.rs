//! Redirect contexts of Carnet's form: a flow, then the filter's own bytes.
#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

use carnet::{ErrorKind, Flow};
use proptest::{collection::vec, prelude::*};
use zerocopy::{FromBytes, IntoBytes};

const FLOW_SIZE: usize = size_of::<carnet_abi::Flow>();

proptest! {
    #[test]
    fn what_was_put_together_comes_apart(later in vec(any::<u8>(), 0..64), own in vec(any::<u8>(), 0..300)) {
        let flow = [flow(FLOW_SIZE + later.len()).as_bytes(), &later].concat();
        let context = [&Flow::CONTEXT_MAGIC[..], &flow, &own].concat();

        let (found, rest) = Flow::from_context(&context).unwrap();
        prop_assert_eq!(found, Some(Flow::from_bytes(&flow).unwrap()));
        prop_assert_eq!(rest, &own);
    }

    #[test]
    fn without_the_magic_all_bytes_are_the_filters(context in vec(any::<u8>(), 0..600)) {
        prop_assume!(!context.starts_with(&Flow::CONTEXT_MAGIC));
        let (found, rest) = Flow::from_context(&context).unwrap();
        prop_assert_eq!((found, rest), (None, &context[..]));
    }

    /// Whatever follows the magic: a flow that ends where its size says, and the bytes after it; or malformed.
    #[test]
    fn no_bytes_panic(
        mut bytes in vec(any::<u8>(), 0..3 * FLOW_SIZE),
        size in 0..3 * FLOW_SIZE,
        likely in any::<bool>(),
    ) {
        if let Ok((flow, _)) = carnet_abi::Flow::mut_from_prefix(&mut bytes) && likely {
            (flow.version, flow.size, flow.depth, flow.origin.family) = (1, u16::try_from(size).unwrap(), 1, 10);
        }
        let context = [&Flow::CONTEXT_MAGIC[..], &bytes].concat();
        match Flow::from_context(&context) {
            Ok((flow, own)) => {
                let size = usize::from(u16::from_ne_bytes([bytes[2], bytes[3]]));
                prop_assert_eq!(flow, Some(Flow::from_bytes(&bytes[..size]).unwrap()));
                prop_assert_eq!(own, &bytes[size..]);
            }
            Err(error) => prop_assert_eq!((error.kind(), error.os_error()), (ErrorKind::Malformed, None)),
        }
    }
}

/// A flow is never read from the filter's bytes, even where there are enough of them.
#[test]
fn a_size_that_is_not_a_flows_is_malformed_at_every_length() {
    for size in 0..FLOW_SIZE {
        let context = [&Flow::CONTEXT_MAGIC[..], flow(size).as_bytes(), &[0; 16]].concat();
        assert_eq!(Flow::from_context(&context).unwrap_err().kind(), ErrorKind::Malformed, "size {size}");
    }
    let context = [&Flow::CONTEXT_MAGIC[..], flow(FLOW_SIZE + 1).as_bytes()].concat();
    assert_eq!(Flow::from_context(&context).unwrap_err().kind(), ErrorKind::Malformed, "cut short by a byte");
}

fn flow(size: usize) -> carnet_abi::Flow {
    let mut flow = carnet_abi::Flow { version: 1, size: u16::try_from(size).unwrap(), depth: 1, ..Default::default() };
    flow.origin.family = 2;
    flow
}
