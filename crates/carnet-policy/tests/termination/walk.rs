//! One flow, hop by hop.

use std::net::SocketAddr;

use carnet_policy::{Carried, Decision, Policy, Question, Reason, Service, Verdict};

/// What a flow meets on its way.
pub trait World {
    fn policy(&self) -> &Policy;

    /// Decides a connection. `question.dead` is the world's to fill in.
    fn decide(&mut self, question: Question) -> Decision;

    /// Whether nobody listens for the provider.
    fn is_dead(&mut self, provider: usize) -> bool;

    /// What the provider's service does with a flow it has got.
    fn behaviour(&mut self, provider: usize) -> Behaviour;

    /// Time passes before each connection, and the policy may change. Returns its generation.
    fn tick(&mut self) -> usize {
        0
    }
}

/// What a service does with a flow.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Behaviour {
    pub dials: Dials,
    pub carries: Carries,
}

/// Where a service goes on to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Dials {
    /// The flow's destination.
    Destination,
    /// Another destination: it rewrites.
    Other,
    /// A provider's listener: it has an upstream, or is its own.
    Listener(usize),
}

/// What a service's outgoing connection says of the flow.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Carries {
    /// It sets the record.
    Record,
    /// It sets none: it forgets, or cannot. An unaware provider's connection inherits a record where it can.
    Nothing,
    /// As `Nothing`, and the service holds a flow of another application to the same destination.
    NothingInACrowd,
    /// A process makes the connection that is not the provider's, so it is like a new application's.
    Outside,
}

/// The runaway guard: how many of the connections in flight it counts per provider and remote.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Guard {
    /// Every connection that is handed to a provider.
    Full,
    /// Redirected ones only, not those dialled directly.
    RedirectsOnly,
}

/// How a flow ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum End {
    /// At a destination.
    Passed(Reason),
    /// At a refused connect().
    Refused(Reason),
    /// At the guard.
    Runaway,
    /// Nobody answered at a listener that was dialled directly.
    Unanswered,
    /// Not within [`Walk::ENDLESS`] hops.
    Loop,
}

/// A provider that had the flow.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    pub provider: usize,
    /// Of the policy at that time.
    pub generation: usize,
    /// The provider's rank at that time.
    pub rank: u16,
    /// Floor of the record that the connection to it carried.
    pub floor: Option<u16>,
    /// What its service did then.
    pub behaviour: Behaviour,
}

/// Follows flows; keeps its buffers from one to the next.
#[derive(Default)]
pub struct Walk {
    /// Providers that had the last flow, in order.
    pub steps: Vec<Step>,
    held: Vec<Held>,
}

/// A connection that a provider has accepted. All of a flow's are open until the last of them ends.
struct Held {
    provider: usize,
    remote: SocketAddr,
    identity: Identity,
    record: Carried,
}

/// Whose a connection is.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Identity {
    Application,
    Service(usize),
    Outside(usize),
}

impl Walk {
    /// More hops than any flow has that ends.
    pub const ENDLESS: usize = 100;

    /// Follows a flow that an application starts to `start`; where that is an explicit proxy, `destinations[0]` is what
    /// the application wants of it.
    pub fn follow(
        &mut self,
        world: &mut impl World,
        start: SocketAddr,
        destinations: [SocketAddr; 2],
        guard: Guard,
    ) -> End {
        self.steps.clear();
        self.held.clear();
        let mut destination = if start == destinations[1] { start } else { destinations[0] };
        let mut remote = start;
        let mut dialer = None;
        let mut identity = Identity::Application;
        let mut record: Option<Carried> = None;
        loop {
            let generation = world.tick();
            let listener = world.policy().listener_at(remote);
            let question = Question { record, dialer, listener, ..Question::to(remote) };
            let decision = world.decide(question);
            let provider = match (decision.verdict, decision.provider) {
                (Verdict::Pass, _) => return End::Passed(decision.reason),
                (Verdict::Refuse, _) => return End::Refused(decision.reason),
                (Verdict::Redirect | Verdict::Direct, provider) => provider.expect("a provider gets the flow"),
            };
            let next = decision.record(world.policy(), &question).expect("a flow that a provider gets has a record");
            if self.is_runaway(world.policy(), provider, remote, decision.verdict, guard) {
                return End::Runaway;
            }
            if decision.verdict == Verdict::Direct && world.is_dead(provider) {
                return End::Unanswered;
            }
            let behaviour = world.behaviour(provider);
            let rank = world.policy().providers[provider].rank;
            let floor = record.map(|record| record.floor);
            self.steps.push(Step { provider, generation, rank, floor, behaviour });
            if self.steps.len() == Self::ENDLESS {
                return End::Loop;
            }
            self.held.push(Held { provider, remote, identity, record: next });

            remote = match behaviour.dials {
                Dials::Destination => destination,
                Dials::Other => {
                    destination = if destination == destinations[0] { destinations[1] } else { destinations[0] };
                    destination
                }
                Dials::Listener(upstream) => world.policy().providers[upstream].listeners[0],
            };
            dialer = (behaviour.carries != Carries::Outside).then_some(provider);
            (identity, record) = match behaviour.carries {
                Carries::Record => (identity, Some(next)),
                Carries::NothingInACrowd => (Identity::Service(provider), None),
                Carries::Outside => (Identity::Outside(provider), None),
                Carries::Nothing => match self.inferred(world.policy(), provider, remote) {
                    Some(held) => (held.identity, Some(held.record)),
                    None => (Identity::Service(provider), None),
                },
            };
        }
    }

    /// An unaware provider's connection inherits the record of the flows it holds to the same place, if those have one
    /// identity.
    fn inferred(&self, policy: &Policy, provider: usize, remote: SocketAddr) -> Option<&Held> {
        if policy.providers[provider].service != Service::Unaware {
            return None;
        }
        let mut flows = self.held.iter().filter(|held| held.provider == provider && held.remote == remote);
        let first = flows.next()?;
        flows.all(|held| held.identity == first.identity).then_some(first)
    }

    fn is_runaway(&self, policy: &Policy, provider: usize, remote: SocketAddr, verdict: Verdict, guard: Guard) -> bool {
        let limit = policy.providers[provider].in_flight_limit as usize;
        if limit == 0 || (guard == Guard::RedirectsOnly && verdict == Verdict::Direct) {
            return false;
        }
        self.held.iter().filter(|held| held.provider == provider && held.remote == remote).count() >= limit
    }
}
