//! Chains of one to eight services in every order: the order of ranks decides, and nothing else does. The services are
//! processes, so what passes through them is what an application would see. The events tell each hop.

use std::hash::{BuildHasher, RandomState};
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::process::Command;

use carnet::Redirect;
use carnet_abi::{EVENT_CONNECT, Event, VERDICT_PASS, VERDICT_REDIRECT};
use carnet_e2e::sockets::{accept, assert_joined, connect, is_idle, listen};
use carnet_e2e::{Relay, Sandbox};
use carnet_policy::{Provider, Service};

const RELAY: &str = env!("CARGO_BIN_EXE_carnet-e2e-relay");

#[test]
fn all_orders_of_up_to_four_services() {
    let mut chains = Chains::new(4);
    let mut cases = 0;
    for count in 1..=4 {
        for order in orders(count) {
            for destination in chains.destinations {
                chains.pass(destination, &order.iter().map(|&relay| (relay, Both)).collect::<Vec<_>>());
                cases += 1;
            }
        }
    }
    assert_eq!(cases, 2 * (1 + 2 + 6 + 24));
}

#[test]
fn random_orders_of_five_to_eight_services() {
    let mut dice = Dice::new();
    let mut chains = Chains::new(8);
    for count in 5..=8 {
        for destination in [chains.destinations; 5].concat() {
            let order = dice.shuffled(8);
            chains.pass(destination, &order[..count].iter().map(|&relay| (relay, Both)).collect::<Vec<_>>());
        }
    }
}

/// An IPv6 socket reaches a service that listens on IPv4 alone by its v4-mapped address, so the family changes from hop
/// to hop.
#[test]
fn hops_of_mixed_families() {
    let mut dice = Dice::new();
    let mut chains = Chains::new(8);
    let [_, v6] = chains.destinations;
    for count in [1, 2, 3, 4, 8] {
        for _ in 0..5 {
            let order = dice.shuffled(8);
            let hops: Vec<_> =
                order[..count].iter().map(|&relay| (relay, [OnlyV4, OnlyV6, Both][dice.below(3)])).collect();
            chains.pass(v6, &hops);
        }
    }
    // Alternating, whatever the dice say.
    chains.pass(v6, &[(0, OnlyV4), (1, OnlyV6), (2, OnlyV4), (3, OnlyV6), (4, OnlyV4)]);
    chains.pass(v6, &[(4, OnlyV6), (3, OnlyV4), (2, OnlyV6), (1, OnlyV4)]);
}

/// A flow keeps the floor it had, so it does not meet a service twice because the order was turned around under it.
#[test]
fn ranks_change_under_a_live_flow() {
    let mut sandbox = Sandbox::new();
    let server = listen("127.0.0.1:0");
    let destination = server.local_addr().unwrap();
    let [first, second, third] = [(); 3].map(|()| sandbox.service(Service::Aware));
    let (mut client, mut at_first) = sandbox.arrive(&first, destination);
    let to_second = sandbox.in_service(first.index, || Redirect::of(&at_first).dial()).expect("dial");
    let at_second = accept(&second.listeners[0]);

    // The second service was at rank 20 when it got the flow and is at 1 when it goes on: the first is above it now.
    for (provider, rank) in sandbox.policy.providers.iter_mut().zip([5, 1, 40]) {
        provider.rank = rank;
    }
    sandbox.apply();
    let to_third = sandbox.in_service(second.index, || Redirect::of(&at_second).dial()).expect("dial");
    let at_third = accept(&third.listeners[0]);
    let flow = Redirect::of(&at_third).flow().unwrap();
    assert_eq!(flow.chain().iter().map(|hop| hop.handle).collect::<Vec<_>>(), [1, 2, 3]);
    let mut onward = sandbox.in_service(third.index, || Redirect::of(&at_third).dial()).expect("dial");
    let mut last = accept(&server);
    assert_joined(&mut onward, &mut last);
    assert!([&first, &second, &third].iter().all(|service| service.listeners.iter().all(is_idle)));

    // A flow that begins now goes by the new order.
    let (_client, at_second) = sandbox.arrive(&second, destination);
    assert_eq!(Redirect::of(&at_second).flow().unwrap().depth(), 1);
    assert_joined(&mut client, &mut at_first);
    drop((to_second, to_third));
}

/// Where a service listens, as the policy knows it.
#[derive(Clone, Copy, Debug)]
enum Listens {
    Both,
    OnlyV4,
    OnlyV6,
}
use Listens::{Both, OnlyV4, OnlyV6};

struct Chains {
    sandbox: Sandbox,
    /// By number of the relay, as it was when the relay was started.
    providers: Vec<Provider>,
    /// IPv4 and IPv6.
    destinations: [SocketAddr; 2],
    _relays: Vec<Relay>,
    _server: Relay,
}

impl Chains {
    fn new(count: usize) -> Self {
        let mut sandbox = Sandbox::new();
        let relays = (0..count).map(|_| sandbox.relay(RELAY, Service::Aware, &["aware"])).collect();
        let server = Relay::start(0, Command::new(RELAY).arg("server"));
        let providers = sandbox.policy.providers.clone();
        Self { sandbox, providers, destinations: server.addresses, _relays: relays, _server: server }
    }

    /// One connection through these services, which get rising ranks in the order given. They stand in the policy in
    /// the order in which they were started.
    fn pass(&mut self, destination: SocketAddr, hops: &[(usize, Listens)]) {
        println!("to {destination} through {hops:?}");
        let mut providers: Vec<Provider> = Vec::new();
        for (place, &(relay, listens)) in hops.iter().enumerate() {
            let mut provider = self.providers[relay].clone();
            provider.rank = 7 + 3 * place as u16;
            match listens {
                Both => {}
                OnlyV4 => provider.listeners.retain(SocketAddr::is_ipv4),
                OnlyV6 => provider.listeners.retain(SocketAddr::is_ipv6),
            }
            providers.push(provider);
        }
        providers.sort_by_key(|provider| provider.handle);
        self.sandbox.policy.providers = providers;
        self.sandbox.apply();
        self.sandbox.events();

        let mut client = self.sandbox.in_app(|| connect(destination)).expect("connect");
        assert_eq!(client.peer_addr().expect("connected"), destination);
        assert_intact(&mut client);
        let events = self.sandbox.events();
        let decisions: Vec<&Event> = events.iter().filter(|event| event.kind == EVENT_CONNECT).collect();
        let wanted: Vec<u32> = hops.iter().map(|&(relay, _)| self.providers[relay].handle).collect();
        let taken: Vec<u32> = decisions.iter().map(|event| event.handle).take(hops.len()).collect();
        assert_eq!(taken, wanted, "in the order of the ranks");
        assert_eq!(decisions.len(), hops.len() + 1, "each service once, then the destination");
        for (hop, event) in decisions.iter().enumerate() {
            assert_eq!(event.verdict, if hop < hops.len() { VERDICT_REDIRECT } else { VERDICT_PASS });
            assert_eq!(event.record.flow, decisions[0].record.flow, "one flow id");
            assert_eq!(event.base as usize, hop);
            assert_eq!(event.record.origin.pid, std::process::id(), "the application, at every hop");
            assert_eq!(event.remote.to_socket_addr(), destination);
            assert_eq!(event.dialer, if hop == 0 { 0 } else { wanted[hop - 1] });
            let chain: Vec<u32> =
                event.record.chain.iter().map(|hop| hop.handle).filter(|&handle| handle != 0).collect();
            assert_eq!(chain, wanted[..(hop + 1).min(hops.len())]);
        }
    }
}

/// More than fits into one segment, there and back, and the end of it in both directions.
fn assert_intact(client: &mut TcpStream) {
    let sent: Vec<u8> = (0..100_000_u32).map(|i| (i / 7 % 251) as u8).collect();
    let mut writer = client.try_clone().expect("a descriptor");
    let mut came = Vec::new();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            writer.write_all(&sent).expect("write");
            writer.shutdown(Shutdown::Write).expect("shutdown");
        });
        client.read_to_end(&mut came).expect("read");
    });
    assert!(came == sent, "{} of {} bytes came back, or others", came.len(), sent.len());
}

/// All orders of 0..count.
fn orders(count: usize) -> Vec<Vec<usize>> {
    if count == 0 {
        return vec![Vec::new()];
    }
    let insert_last = |shorter: Vec<usize>| {
        (0..=shorter.len()).map(move |at| [&shorter[..at], &[count - 1], &shorter[at..]].concat())
    };
    orders(count - 1).into_iter().flat_map(insert_last).collect()
}

/// Random numbers that can be had again: `CARNET_SEED`.
struct Dice(u64);

impl Dice {
    fn new() -> Self {
        let given = std::env::var("CARNET_SEED").ok().map(|seed| seed.parse().expect("CARNET_SEED is a number"));
        let seed = given.unwrap_or_else(|| RandomState::new().hash_one(0));
        println!("once more: CARNET_SEED={seed}");
        Self(seed | 1)
    }

    /// xorshift64.
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        ((self.0 >> 32) % limit as u64) as usize
    }

    fn shuffled(&mut self, count: usize) -> Vec<usize> {
        let mut left: Vec<usize> = (0..count).collect();
        (0..count).map(|_| left.remove(self.below(left.len()))).collect()
    }
}
