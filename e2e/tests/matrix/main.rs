//! The redirect matrix for TCP, with nothing left out.
//!
//! | axis | |
//! | --- | --- |
//! | socket | IPv4, v6-only, dual-stack; to IPv4, to IPv6, and by IPv4-mapped addresses |
//! | bound to | nothing; loopback, an own address, a port alone; a dual-stack socket by either family |
//! | destination | loopback, an own address of this host's, another host's, one that nobody has |
//! | service listens at | loopback, an own address; by both families or by one |
//! | user | root, nobody |
//! | programs attached | for sockets of both families, or of one |
//! | the host | has no filter; permits all, or blocks all, the service listening everywhere |
//!
//! Services are processes of this host, so a redirect never leads to another host. Another host is where the service
//! goes on to.
//!
//! Each cell is compared with a model (`model.rs`), which is told nothing by the engine, and where no program sees the
//! socket with the same connect() without Carnet (`without.rs`). Of a redirected connection everything is looked at: who
//! the client seems to talk to, what the service is told, whether a word gets through to the server and back, and the
//! event (`judge.rs`, `events.rs`).
#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

mod attempt;
mod cell;
mod door;
mod events;
mod judge;
mod model;
mod stage;
mod without;

use std::net::SocketAddr;

use carnet::Redirect;
use carnet_e2e::sockets::{accept, connect, connect_on, stream};
use carnet_e2e::{Sandbox, netns};
use carnet_policy::{HostAction, Match, Prefix, Service};

use attempt::User;
use cell::{Cell, Family, Place};
use door::{Doors, doors_at};
use judge::Outcome;
use model::Hooks;
use stage::{Covered, Stage, Tally};

#[test]
fn what_the_kernel_answers_without_carnet() {
    netns::with_neighbour(
        || doors_at(Place::Other),
        |others| {
            let cells: Vec<_> = Place::ALL.into_iter().flat_map(Cell::to).collect();
            let mut servers = servers(others);
            for user in [User::Root, User::Nobody] {
                for (cell, outcome) in without::outcomes(&cells, user, &mut servers) {
                    assert_eq!(outcome, without::known(cell), "{cell}, as {user:?}");
                }
            }
        },
    );
}

// 26 sockets, four destinations and six choices of listeners are 624 cells. Of those that no program sees, 14 IPv6 and 3
// IPv4 sockets get no answer, and are tried with one choice of listeners.

#[test]
fn all_programs_and_root() {
    let tally = matrix(Hooks::Both, User::Root);
    assert_eq!(tally, Tally { redirected: 448, refused: 176, ..Tally::default() });
}

#[test]
fn all_programs_and_nobody() {
    let tally = matrix(Hooks::Both, User::Nobody);
    assert_eq!(tally, Tally { redirected: 448, refused: 176, ..Tally::default() });
}

#[test]
fn programs_for_ipv4_sockets_and_root() {
    let tally = matrix(Hooks::Only(Family::V4), User::Root);
    assert_eq!(tally, Tally { redirected: 64, refused: 32, as_without: 458, ..Tally::default() });
}

#[test]
fn programs_for_ipv4_sockets_and_nobody() {
    let tally = matrix(Hooks::Only(Family::V4), User::Nobody);
    assert_eq!(tally, Tally { redirected: 64, refused: 32, as_without: 458, ..Tally::default() });
}

#[test]
fn programs_for_ipv6_sockets_and_root() {
    let tally = matrix(Hooks::Only(Family::V6), User::Root);
    assert_eq!(tally, Tally { redirected: 384, refused: 144, as_without: 81, ..Tally::default() });
}

#[test]
fn programs_for_ipv6_sockets_and_nobody() {
    let tally = matrix(Hooks::Only(Family::V6), User::Nobody);
    assert_eq!(tally, Tally { redirected: 384, refused: 144, as_without: 81, ..Tally::default() });
}

/// A decision that is no redirect leaves everything as it is: each address and each errno, of all that can be asked for.
#[test]
fn what_the_host_permits_is_as_without_carnet() {
    for user in [User::Root, User::Nobody] {
        let tally = by_the_host(HostAction::Permit, Hooks::Both, user);
        assert_eq!(tally, Tally { permitted: 104, ..Tally::default() });
    }
}

#[test]
fn what_the_host_blocks() {
    for (hooks, blocked) in [(Hooks::Both, 104), (Hooks::Only(Family::V4), 16), (Hooks::Only(Family::V6), 88)] {
        let tally = by_the_host(HostAction::Block, hooks, User::Nobody);
        assert_eq!(tally, Tally { blocked, as_without: 104 - blocked, ..Tally::default() });
    }
}

/// A flow is judged by where it goes at each hop: the application may go to the address that nobody has, and the service
/// not from there to the other host.
#[test]
fn the_host_blocks_where_a_service_goes_on_to() {
    netns::with_neighbour(
        || doors_at(Place::Other),
        |others| {
            let mut servers = servers(others);
            let mut sandbox = Sandbox::new();
            let service = sandbox.service(Service::Aware);
            for (family, length) in [(Family::V4, 32), (Family::V6, 128)] {
                let other = Prefix { address: Place::Other.ip(family), length };
                sandbox.host_filter(Match::default().to(other), HostAction::Block);
            }
            for (family, listener) in Family::BOTH.into_iter().zip(&service.listeners) {
                let server = servers[&(family, Place::Other)].address;
                assert_eq!(sandbox.in_app(|| connect(server)).unwrap_err(), libc::EACCES);
                let asked = SocketAddr::new(Place::Nowhere.ip(family), 9);
                let _client = sandbox.in_app(|| connect(asked)).expect("connect");
                let accepted = accept(listener);
                let onward = sandbox.in_service(0, || {
                    let socket = stream(server);
                    Redirect::of(&accepted).records().unwrap().apply_to(&socket).unwrap();
                    connect_on(socket, &server.into())
                });
                assert_eq!(onward.unwrap_err(), libc::EACCES);
            }
            servers.values_mut().for_each(|door| door.assert_no_stranger().unwrap());
        },
    );
}

/// All cells against all listeners, and what became of them. Every cell that is not as it must be is named.
fn matrix(hooks: Hooks, user: User) -> Tally {
    on_stage(hooks, user, |stage, cells| {
        let mut failures = Vec::new();
        for at in Place::HERE {
            for families in [&Family::BOTH[..], &[Family::V4], &[Family::V6]] {
                stage.listen(at, families);
                failures.extend(stage.judge(cells));
            }
        }
        assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures.join("\n"));
        let pairs = Place::ALL.into_iter().flat_map(|to| Place::HERE.map(|at| (to, at)));
        let all: Covered = pairs.flat_map(|(to, at)| [(to, at, false), (to, at, true)]).collect();
        assert_eq!(stage.covered, all, "every pair of destination and listener, by sockets bound and not");
    })
}

/// All cells, of which the service gets none.
fn by_the_host(action: HostAction, hooks: Hooks, user: User) -> Tally {
    on_stage(hooks, user, |stage, cells| {
        stage.decide(action);
        let failures = stage.judge(cells);
        assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures.join("\n"));
    })
}

fn on_stage(hooks: Hooks, user: User, act: impl FnOnce(&mut Stage, &[(Cell, Outcome)]) + Send) -> Tally {
    netns::with_neighbour(
        || doors_at(Place::Other),
        |others| {
            let cells: Vec<_> = Place::ALL.into_iter().flat_map(Cell::to).collect();
            let mut servers = servers(others);
            let cells = without::outcomes(&cells, user, &mut servers);
            let mut stage = Stage::new(hooks, user, servers);
            act(&mut stage, &cells);
            stage.tally
        },
    )
}

/// A server at each place where there can be one, by both families. The other host's were made there, and can be
/// reached: the kernel drops what is sent before the interface is ready.
fn servers(mut others: Doors) -> Doors {
    for door in others.values_mut() {
        door.wait_until_reached();
    }
    // What is sent to nobody's address is sent, and vanishes. The kernel need not ask who has it.
    for family in Family::BOTH {
        netns::ip(&format!("neigh add {} lladdr 02:00:00:00:00:77 dev carnet0", Place::Nowhere.ip(family)));
    }
    Place::HERE.into_iter().flat_map(doors_at).chain(others).collect()
}
