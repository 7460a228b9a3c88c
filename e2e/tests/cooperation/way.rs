//! One flow's way through products, as the engine tells it.

use carnet_abi::{EVENT_CONNECT, Event, ORIGIN_INFERRED, VERDICT_PASS, VERDICT_REDIRECT};
use carnet_e2e::sockets::until;
use carnet_policy::Service as Kind;

use crate::stage::Stage;

/// curl fetches this path from the origin of this family, through all services in this order: each has the flow once, and
/// at every hop it is curl's, inferred from the first hop on behind which no record was carried.
pub fn passes(stage: &mut Stage, order: &[usize], family: usize, path: &str) {
    stage.sandbox.events();
    let destination = stage.http[family].address;
    let peer = stage.fetch(path, family);
    assert_eq!(peer, format!("{} {}", destination.ip(), destination.port()));

    let decided = decisions(stage);
    let said = || format!("{order:?} to {destination}: {decided:#?}");
    assert_eq!(decided.len(), order.len() + 1, "each service once, then the origin: {}", said());
    for (hop, event) in decided.iter().enumerate() {
        let service = order.get(hop);
        assert_eq!(event.verdict, if service.is_some() { VERDICT_REDIRECT } else { VERDICT_PASS }, "{}", said());
        assert_eq!(event.handle, service.map_or(0, |&service| service as u32 + 1), "{}", said());
        assert_eq!((event.remote.to_socket_addr(), event.base as usize), (destination, hop), "{}", said());
        assert_eq!(event.record.flow, decided[0].record.flow, "one flow: {}", said());
        let origin = &event.record.origin;
        assert!(origin.comm.starts_with(b"curl\0") && origin.pid == decided[0].pid, "{}", said());
        let inferred = order[..hop].iter().any(|&before| stage.products[before].kind() == Kind::Unaware);
        assert_eq!(origin.flags, if inferred { ORIGIN_INFERRED } else { 0 }, "hop {hop}: {}", said());
    }
    let served = || stage.http[family].served().into_iter().filter(|exchange| exchange.path == path).count();
    until("the origin to be done", || (served() > 0).then_some(()));
    assert_eq!(served(), 1, "{}", said());
    until("the flow to be over", || (stage.sandbox.engine.open_flights().unwrap() == 0).then_some(()));
}

/// Decisions since the last time.
pub fn decisions(stage: &mut Stage) -> Vec<Event> {
    stage.sandbox.events().into_iter().filter(|event| event.kind == EVENT_CONNECT).collect()
}
