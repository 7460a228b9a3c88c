//! A small world in which everything can be otherwise: what each filter says, who is alive, who may be dialled, and
//! what each service does.
//!
//! Nothing is chosen before it matters. Until then every provider redirects everything and is alive; when the decision
//! falls on such a provider, the choice is made and the decision asked again. So no two runs differ only in what the
//! flow never met, and a flow that the decision leads back to a provider it should have passed does get there.

use std::net::{Ipv4Addr, SocketAddr};

use carnet_policy::testing::plain_provider;
use carnet_policy::{Action, Decision, Filter, Match, OnDead, Policy, Provider, Providers, Question, Verdict};

use crate::choices::Choices;
use crate::kinds::Kind;
use crate::rules::{Rules, decide_by};
use crate::walk::{Behaviour, End, Guard, Walk, World};

/// The two destinations there are.
pub const DESTINATIONS: [SocketAddr; 2] = [destination(80), destination(443)];

/// Which flows to walk.
pub struct Setup {
    pub providers: usize,
    pub rules: Rules,
    pub kinds: Vec<Kind>,
    /// Of each provider; 0: none.
    pub in_flight_limit: u32,
    pub guard: Guard,
    /// How often the policy may change during a flow.
    pub changes: usize,
    /// Choose everything before the flow starts; the check of the late choices.
    pub chosen_early: bool,
}

impl Setup {
    /// All rules, no guard, no changes.
    pub fn new(providers: usize, kinds: Vec<Kind>) -> Self {
        Self {
            providers,
            rules: Rules::All,
            kinds,
            in_flight_limit: 0,
            guard: Guard::Full,
            changes: 0,
            chosen_early: false,
        }
    }

    /// Walks every flow there can be and returns how many there are.
    pub fn every_flow(&self, mut check: impl FnMut(&Small, SocketAddr, &Walk, End)) -> usize {
        let policy = blank(self.providers, self.in_flight_limit);
        let orders = permutations(self.providers);
        let mut walk = Walk::default();
        Choices::exhaust(|choices| {
            let mut world = Small::new(choices, self, &orders, policy.clone());
            if self.chosen_early {
                world.settle_all();
            }
            let start = world.start();
            let end = walk.follow(&mut world, start, DESTINATIONS, self.guard);
            check(&world, start, &walk, end);
        })
    }

    /// How many flows loop.
    pub fn loops(&self) -> usize {
        let mut loops = 0;
        self.every_flow(|_, _, _, end| loops += usize::from(end == End::Loop));
        loops
    }
}

/// A world of up to four providers, for one flow.
pub struct Small<'c> {
    choices: &'c mut Choices,
    setup: &'c Setup,
    orders: &'c [Vec<usize>],
    policy: Policy,
    dead: Providers,
    known: Vec<Known>,
    generation: usize,
}

/// What has been chosen for one provider.
#[derive(Clone, Copy, Debug, Default)]
struct Known {
    redirects: [Option<bool>; 2],
    life: Option<Life>,
    direct: Option<bool>,
    kind: Option<Kind>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Life {
    Alive,
    DeadClosed,
    DeadOpen,
}

/// The policy of a small world before anything is chosen. Ranks are not in the order given.
pub fn blank(providers: usize, in_flight_limit: u32) -> Policy {
    let filter = |port| Filter {
        name: format!("port {port}"),
        weight: 1,
        matches: Match::default().on_ports(port..=port),
        action: Action::Redirect { context: Vec::new() },
    };
    let provider = |index: usize| Provider {
        rank: RANKS[index],
        in_flight_limit,
        filters: DESTINATIONS.map(|destination| filter(destination.port())).into(),
        ..plain_provider(index as u16)
    };
    let providers = (0..providers).map(provider).collect();
    let policy = Policy { providers, ..Policy::default() };
    policy.validate().expect("a sound policy");
    policy
}

impl<'c> Small<'c> {
    /// `orders` are those the ranks can change to.
    fn new(choices: &'c mut Choices, setup: &'c Setup, orders: &'c [Vec<usize>], policy: Policy) -> Self {
        let known = vec![Known::default(); policy.providers.len()];
        Self { choices, setup, orders, policy, dead: Providers::NONE, known, generation: 0 }
    }

    /// Where the application dials: a destination or a listener.
    fn start(&mut self) -> SocketAddr {
        let providers = &self.policy.providers;
        match self.choices.choose(2 + providers.len()) {
            destination @ (0 | 1) => DESTINATIONS[destination],
            listener => providers[listener - 2].listeners[0],
        }
    }

    /// Providers that want flows to `destination`, in rank order, up to the first that refuses them because it is dead;
    /// and whether there is one. Only for what has been chosen: anything else does not count.
    pub fn wanting(&self, destination: SocketAddr) -> (Vec<usize>, bool) {
        let port = port_index(destination);
        let mut by_rank: Vec<usize> = (0..self.known.len()).collect();
        by_rank.sort_by_key(|&provider| self.policy.providers[provider].rank);
        let mut wanting = Vec::new();
        for provider in by_rank {
            match (self.known[provider].redirects[port], self.known[provider].life) {
                (Some(true), Some(Life::Alive)) => wanting.push(provider),
                (Some(true), Some(Life::DeadClosed)) => return (wanting, true),
                _ => {}
            }
        }
        (wanting, false)
    }

    fn settle_all(&mut self) {
        for provider in 0..self.known.len() {
            for destination in DESTINATIONS {
                self.settle_redirect(provider, destination);
            }
            self.settle_life(provider);
            self.settle_direct(provider);
            self.behaviour(provider);
        }
    }

    /// Chooses what the decision fell on, unless it is chosen. True where that makes another decision.
    fn settle_redirect(&mut self, provider: usize, remote: SocketAddr) -> bool {
        let port = port_index(remote);
        if self.known[provider].redirects[port].is_none() {
            let redirects = self.choices.pick(&[true, false]);
            self.known[provider].redirects[port] = Some(redirects);
            if !redirects {
                self.policy.providers[provider].filters[port].action = Action::Skip;
                return true;
            }
        }
        self.settle_life(provider) && self.dead.contains(provider)
    }

    /// True where it was not chosen before.
    fn settle_life(&mut self, provider: usize) -> bool {
        if self.known[provider].life.is_some() {
            return false;
        }
        let life = self.choices.pick(&[Life::Alive, Life::DeadClosed, Life::DeadOpen]);
        self.known[provider].life = Some(life);
        if life != Life::Alive {
            self.dead.insert(provider);
        }
        if life == Life::DeadOpen {
            self.policy.providers[provider].on_dead = OnDead::Open;
        }
        true
    }

    fn settle_direct(&mut self, provider: usize) {
        if self.known[provider].direct.is_none() {
            let direct = self.choices.pick(&[false, true]);
            self.known[provider].direct = Some(direct);
            self.policy.providers[provider].direct = direct;
        }
    }
}

impl World for Small<'_> {
    fn policy(&self) -> &Policy {
        &self.policy
    }

    fn decide(&mut self, question: Question) -> Decision {
        let dialer = question.dialer.filter(|_| question.record.is_none());
        for provider in [question.listener, dialer].into_iter().flatten() {
            self.settle_direct(provider);
        }
        loop {
            let question = Question { dead: self.dead, ..question };
            let decision = decide_by(self.setup.rules, &mut self.policy, question);
            match (decision.verdict, decision.provider) {
                (Verdict::Redirect, Some(provider)) if self.settle_redirect(provider, question.remote) => {}
                _ => return decision,
            }
        }
    }

    fn is_dead(&mut self, provider: usize) -> bool {
        self.settle_life(provider);
        self.dead.contains(provider)
    }

    fn behaviour(&mut self, provider: usize) -> Behaviour {
        let kind = match self.known[provider].kind {
            Some(kind) => kind,
            None => self.choices.pick(&self.setup.kinds),
        };
        self.known[provider].kind = Some(kind);
        self.policy.providers[provider].service = kind.declared;
        kind.behaviour
    }

    /// A change gives the providers other ranks and other filters.
    fn tick(&mut self) -> usize {
        if self.generation == self.setup.changes {
            return self.generation;
        }
        let change = self.choices.choose(1 + self.orders.len());
        if change == 0 {
            return self.generation;
        }
        self.generation += 1;
        for (provider, &place) in self.policy.providers.iter_mut().zip(&self.orders[change - 1]) {
            provider.rank = RANKS[place];
            for filter in &mut provider.filters {
                filter.action = Action::Redirect { context: Vec::new() };
            }
        }
        for known in &mut self.known {
            known.redirects = [None; 2];
        }
        self.generation
    }
}

fn port_index(remote: SocketAddr) -> usize {
    DESTINATIONS.iter().position(|destination| *destination == remote).expect("one of the two destinations")
}

/// Every order of the numbers below `count`.
fn permutations(count: usize) -> Vec<Vec<usize>> {
    let mut all = vec![Vec::new()];
    for number in 0..count {
        let insert_everywhere = |order: &Vec<usize>| {
            (0..=order.len()).map(|at| [&order[..at], &[number], &order[at..]].concat()).collect::<Vec<_>>()
        };
        all = all.iter().flat_map(insert_everywhere).collect();
    }
    all
}

const fn destination(port: u16) -> SocketAddr {
    SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7)), port)
}

const RANKS: [u16; 4] = [20, 0, u16::MAX, 10];
