//! The events of the applications' connections.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use carnet_abi::{
    EVENT_CONNECT, Event, REASON_BLOCKED, REASON_FAMILY, REASON_RULE, VERDICT_PASS, VERDICT_REDIRECT, VERDICT_REFUSE,
    flow_id,
};
use libc::{EACCES, ECONNREFUSED};

use super::judge::Who;

/// What must have been decided.
#[derive(Default)]
pub struct Decided {
    /// The flows of which the service was told.
    pub redirected: Vec<u128>,
    /// How many were refused for want of a listener.
    pub refused: usize,
    /// How many the host's filter let go.
    pub permitted: usize,
    /// How many it refused.
    pub blocked: usize,
}

/// Each decision has its event, and there is none of a connection that no program has seen.
pub fn judge(events: &[Event], decided: &Decided, who: &Who) -> Result<()> {
    let decisions: Vec<_> = events.iter().filter(|event| event.kind == EVENT_CONNECT && event.dialer == 0).collect();
    for event in &decisions {
        let of = (event.uid, event.record.origin.uid, event.record.origin.cgroup_id);
        ensure!(of == (who.uid, who.uid, who.cgroup), "an event of somebody else: {event:#?}");
    }
    let with = |verdict, reason, error| {
        decisions.iter().filter(move |event| (event.verdict, event.reason, event.error) == (verdict, reason, error))
    };
    let redirected: BTreeSet<_> =
        with(VERDICT_REDIRECT, REASON_RULE, 0).map(|event| flow_id(event.record.flow)).collect();
    let told: BTreeSet<_> = decided.redirected.iter().copied().collect();
    ensure!(redirected == told, "events of other flows than the service was told of");
    let counts = [
        ("refused", with(VERDICT_REFUSE, REASON_FAMILY, ECONNREFUSED).count(), decided.refused),
        ("permitted", with(VERDICT_PASS, REASON_RULE, 0).count(), decided.permitted),
        ("blocked", with(VERDICT_REFUSE, REASON_BLOCKED, EACCES).count(), decided.blocked),
    ];
    for (what, events, connections) in counts {
        ensure!(events == connections, "{what}: {events} events of {connections} connections");
    }
    let expected = redirected.len() + decided.refused + decided.permitted + decided.blocked;
    ensure!(decisions.len() == expected, "other decisions: {decisions:#?}");
    Ok(())
}
