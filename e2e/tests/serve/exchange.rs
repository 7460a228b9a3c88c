//! Policies are exchanged while thousands of connections a second are decided.

use std::thread;
use std::time::{Duration, Instant};

use carnet_control::{Event, EventKind};
use carnet_e2e::daemon::Table;
use carnet_e2e::load::Serving;

use crate::host::Host;

/// One policy gives everything to the first service, the other to the second one, behind providers that the first does not
/// have: whoever used the index of one with the table of the other would be refused, or bring another context.
#[test]
fn alone_no_connection_sees_half_a_policy_and_none_fails() {
    let host = Host::new(2);
    let decoys: String = (0..20).map(|index| decoy(&host, index)).collect();
    let one = host.redirecting(0, "one");
    let two = decoys + &host.redirecting(1, "two");
    let daemon = host.daemon(&one);
    let mut events = daemon.events();
    let services = [host.serve(0, "one"), host.serve(1, "two")];
    let mut clients = host.clients();
    clients.more(1000);
    let lost = daemon.status().lost;

    let (before, begin) = (clients.good(), Instant::now());
    let mut exchanges = 0;
    while exchanges < EXCHANGES || begin.elapsed() < LONG_ENOUGH {
        for policy in [&two, &one] {
            let next = Instant::now() + PACE;
            daemon.apply(policy);
            exchanges += 1;
            // Else this would take the processors from the connections that it is about.
            thread::sleep(next.saturating_duration_since(Instant::now()));
        }
    }
    let elapsed = begin.elapsed().as_secs_f64();
    let rate = (clients.good() - before) as f64 / elapsed;
    let summary = format!("{exchanges} exchanges in {elapsed:.1} s under {rate:.0} connections per second");
    println!("{summary}");

    clients.good();
    services.iter().for_each(Serving::assert_right);
    let made = clients.end();
    let had = services.map(|service| service.end());
    assert!(had.iter().all(|count| *count > 100), "each policy has been seen: {had:?}");
    // Clients are killed in the middle of some connections.
    assert!(had.iter().sum::<u64>() >= made, "{had:?}, {made}");
    assert!(rate > LOWEST_RATE, "{summary}");
    let is_bad = |event: &&Event| matches!(event.event, EventKind::Stranger | EventKind::Refused | EventKind::Warning);
    let bad: Vec<_> = events.all().iter().filter(is_bad).collect();
    assert!(bad.is_empty(), "{bad:#?}");
    println!("events that found no room: {}", daemon.status().lost - lost);
}

/// A provider ahead of the second service. Nobody listens there, and what it would get is nobody's.
fn decoy(host: &Host, index: u16) -> String {
    let cgroup = format!("{}/decoy{index}", host.ground.name_of(&host.ground.services));
    let at = format!("127.0.0.1:{}", 2 + index).parse().unwrap();
    let table = Table::owned_by(&format!("decoy{index}"), index, &cgroup, &[at]);
    table.redirecting_with("nobody's", "remote = \"192.0.2.1\"", "of nobody")
}

const EXCHANGES: u32 = 100;
/// From one to the next.
const PACE: Duration = Duration::from_millis(45);
const LONG_ENOUGH: Duration = Duration::from_secs(5);
/// Where a debug build has two processors for clients, services and daemon.
const LOWEST_RATE: f64 = 500.0;
