//! Somebody else's programs on every hook at once.

use carnet_e2e::sockets::{connect, listen};
use carnet_e2e::{Ground, Sandbox};
use carnet_policy::SockName;

use crate::foreign::{Foreign, Place, Seen, beside_services};
use crate::walk::{Party, assert_arrives};

/// Linked, at every place; those of the services' hooks see the services alone.
#[test]
fn programs_on_every_hook_break_nothing_and_see_everything() {
    let names: Vec<_> = ALL.iter().map(|(name, _)| *name).collect();
    for place in Place::ALL {
        let (foreign, party) = beside_services(place, &names);
        passes_beside(party, &foreign, &format!("{place:?}"));
    }
}

/// Without links, as older loaders do it, before Carnet's and after.
#[test]
fn programs_without_links_are_as_good() {
    for before in [true, false] {
        let ground = Ground::new();
        let attach = |ground: &Ground| Foreign::attached_without_links(&ground.services, ALL);
        let (foreign, party) = if before {
            (attach(&ground), Party::of(Sandbox::on(ground)))
        } else {
            let party = Party::of(Sandbox::on(ground));
            (attach(party.sandbox.ground()), party)
        };
        passes_beside(party, &foreign, if before { "before" } else { "after" });
    }
}

fn passes_beside(mut party: Party, foreign: &Foreign, place: &str) {
    for provider in &mut party.sandbox.policy.providers {
        provider.sockname = SockName::Destination;
    }
    party.sandbox.apply();
    for at in ["127.0.0.1:0", "[::1]:0"] {
        let server = listen(at);
        let destination = server.local_addr().unwrap();
        let client = party.sandbox.in_app(|| connect(destination)).expect("connect");
        let hops = party.walk(destination, party.sandbox.app_cgroup().id());
        for (accepted, _) in &hops {
            assert_eq!(accepted.local_addr().unwrap(), destination, "{place}");
        }
        party.assert_idle();
        assert_arrives(client, hops, &server);
        for what in [Seen::Connects, Seen::Peers, Seen::Names, Seen::Gets, Seen::Sets, Seen::Connecting, Seen::States] {
            assert!(foreign.seen(what) > 0, "{what:?} {place} {at}");
        }
    }
    assert_eq!(party.sandbox.engine.open_handovers().unwrap(), 0);
}

/// Each with the number of its hook in `enum bpf_attach_type`.
const ALL: &[(&str, u32)] = &[
    ("pass_connect4", 10),
    ("pass_connect6", 11),
    ("pass_peername4", 29),
    ("pass_peername6", 30),
    ("pass_sockname4", 31),
    ("pass_sockname6", 32),
    ("own_getsockopt", 21),
    ("own_setsockopt", 22),
    ("polite_sockops", 3),
];
