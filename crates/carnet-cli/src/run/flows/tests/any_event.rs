//! Whatever the kernel tells, the log goes on.

use proptest::collection::vec;
use proptest::prelude::*;

use super::super::*;

proptest! {
    /// Events of random bytes, and of few flows with few numbers, so that they meet each other.
    #[test]
    fn no_event_panics(events in vec(prop_oneof![any_event(), likely_event()], 0..60)) {
        let mut joiner = Joiner::new([1, 2].map(|handle| (handle, Known { name: "one".into(), unaware: true })).into());
        let begun = events.iter().filter(|event| event.kind == abi::EVENT_CONNECT && event.base == 0).count();
        for (turn, event) in events.iter().enumerate() {
            joiner.event(event);
            if turn % 7 == 0 {
                joiner.name(flow_id(event.record.flow), Name { text: "name".into(), from: "tls".into() });
            }
            prop_assert!(joiner.open() <= begun, "what never began is open");
        }
        prop_assert!(joiner.finish().len() <= begun);
        prop_assert_eq!(joiner.open(), 0);
    }
}

fn any_event() -> impl Strategy<Value = Event> {
    let bytes = vec(any::<u8>(), size_of::<Event>());
    (bytes, 0..9_u16).prop_map(|(bytes, kind)| {
        let event = Event::from_bytes(&bytes).expect("enough bytes");
        Event { kind, ..event }
    })
}

prop_compose! {
    fn likely_event()(
        (kind, flow, cookie) in (0..9_u16, 0..3_u64, 0..3_u64),
        (base, depth, handles) in (0..4_u32, prop_oneof![0..4_u32, Just(16), Just(17), Just(u32::MAX)], vec(0..4_u32, 16)),
        (verdict, reason, handle, dialer) in (0..6_u32, 0..25_u32, 0..4_u32, 0..4_u32),
        (error, how, flags) in (prop_oneof![0..3_i32, Just(i32::MIN), Just(-1), Just(4096)], 0..6_u32, 0..4_u16),
    ) -> Event {
        let mut event = Event { kind, cookie, base, verdict, reason, handle, dialer, error, how, ..Event::default() };
        (event.record.flow, event.record.depth, event.record.origin.flags) = ([flow, 0], depth, flags);
        for (hop, handle) in event.record.chain.iter_mut().zip(handles) {
            hop.handle = handle;
        }
        event
    }
}
