//! connect(): whose connection, with which record, what is decided, and what comes of it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use carnet_abi as abi;
use carnet_e2e::actor::Family;
use carnet_policy::{Carried as Floor, Decision, Question, Service as Kind, Verdict, decide};
use libc::{EACCES, EAFNOSUPPORT, ECONNREFUSED, EISCONN, ELOOP, ENETUNREACH};

use super::tcp::End;
use super::{Accepted, Answer, Carried, Decided, Model, Origin, Place, Record, SockId, Told};
use crate::op::{Ip, Port, Role, destination};

/// What was decided, in the events' numbers.
struct Ruling {
    verdict: u32,
    reason: u32,
    provider: Option<usize>,
    filter: u32,
    target: SocketAddr,
}

/// Why a provider is dead, the reason that counts last.
#[derive(Clone, Copy, Eq, Ord, PartialEq, PartialOrd)]
enum Trouble {
    Unreachable,
    Dead,
    Stranger,
}

impl Model {
    /// An IPv6 socket that has once tried an IPv4 destination never again reaches an IPv6 one: its connect() waits for
    /// ever, in Linux without Carnet, too. Such steps are left out.
    pub(super) fn connect(&mut self, by: Role, id: SockId, ip: Ip, port: Port) -> Answer {
        let mut after = self.clone();
        let answer = after.try_connect(by, id, ip, port);
        if after.socks[id].hangs {
            return Answer::Nothing;
        }
        *self = after;
        answer
    }

    fn try_connect(&mut self, by: Role, id: SockId, ip: Ip, port: Port) -> Answer {
        if !matches!(self.socks[id].state, Place::Fresh) {
            return Answer::Error(EISCONN);
        }
        let asked = destination(self.socks[id].family, ip, port);
        let mut target = asked;
        if self.socks[id].maker.is_governed() {
            match self.decide(by, id, asked) {
                Ok(Some(other)) => target = other,
                Ok(None) => {}
                Err(error) => return Answer::Error(error),
            }
        }
        Answer::Error(self.dial(id, target))
    }

    /// The decision on one connect(), told and noted. Returns where it is redirected to, or the errno that refuses it.
    fn decide(&mut self, by: Role, id: SockId, asked: SocketAddr) -> Result<Option<SocketAddr>, i32> {
        self.end_unsent(id);
        let maker = self.socks[id].maker;
        let mut owners = self.owned_by(maker);
        if self.highest(&owners).is_none() && by != maker {
            owners = self.owned_by(by);
        }
        let dialer = self.highest(&owners);
        // What was inferred holds for one connection.
        if self.socks[id].carried.as_ref().is_some_and(|carried| carried.inferred) {
            self.socks[id].carried = None;
        }
        self.socks[id].accepted = Accepted::Not;
        self.socks[id].redirected = None;

        let remote = self.meant(id, asked);
        let listener = self.dialled(remote);
        let Some((record, carried)) = self.record(by, id, dialer, listener, remote) else { return Ok(None) };
        let base = if carried { record.chain.len() as u32 } else { 0 };
        let ruling = self.rule(id, remote, dialer, listener, carried.then_some(&record));

        let mut after = record;
        let handle = ruling.provider.map_or(0, |at| self.policy.providers[at].handle);
        let error = errno(&ruling);
        let hands_over = matches!(ruling.verdict, abi::VERDICT_REDIRECT | abi::VERDICT_DIRECT);
        let dialer = dialer.map_or(0, |at| self.policy.providers[at].handle);
        if hands_over && let Some(at) = ruling.provider {
            let filter = if ruling.verdict == abi::VERDICT_REDIRECT { ruling.filter } else { 0 };
            let rank = self.policy.providers[at].rank;
            after.floor = if after.chain.is_empty() { rank } else { after.floor.max(rank) };
            after.chain.push((handle, filter));
            after.origin.strayed |= carried && after.origin.remote != remote;
        }
        self.told.push(Told::Connect {
            sock: id,
            record: after.clone(),
            remote,
            verdict: ruling.verdict,
            reason: ruling.reason,
            handle,
            filter: ruling.filter,
            dialer,
            base,
            error,
        });
        if let Some(carried) = &mut self.socks[id].carried {
            carried.now = after.clone();
        }
        if error != 0 {
            return Err(error);
        }
        let redirected = ruling.verdict == abi::VERDICT_REDIRECT;
        self.socks[id].redirected = redirected.then_some(remote);
        self.socks[id].decided = Some(Decided {
            record: after,
            remote,
            verdict: ruling.verdict,
            handle: if hands_over { handle } else { 0 },
            dialer,
            base,
            sent: false,
            counted: false,
        });
        Ok(redirected.then_some(ruling.target))
    }

    /// The record this connection starts from, and whether it is carried from a service's accepted one. `None`: it is a
    /// service's own business.
    fn record(
        &mut self,
        by: Role,
        id: SockId,
        dialer: Option<usize>,
        listener: Option<usize>,
        remote: SocketAddr,
    ) -> Option<(Record, bool)> {
        if let Some(carried) = &self.socks[id].carried {
            return Some((carried.record.clone(), true));
        }
        let mut ambiguous = false;
        let mut held = false;
        if let Some(at) = dialer
            && self.policy.providers[at].service == Kind::Unaware
            && let Some(flight) = self.flight(self.policy.providers[at].handle, remote)
        {
            held = true;
            if !flight.ambiguous {
                let mut record = flight.record.clone();
                record.origin.inferred = true;
                self.socks[id].carried = Some(Carried::new(&record, true));
                return Some((record, true));
            }
            ambiguous = true;
        }
        // A service's connection to another socket of its own.
        if !held
            && listener.is_none()
            && let Some(at) = dialer
            && self.listener(remote).is_some_and(|other| self.owned_by(self.socks[other].maker).contains(&at))
        {
            return None;
        }
        self.flows += 1;
        let family = self.socks[id].family;
        let origin = Origin { by, remote, family, inferred: false, ambiguous, strayed: false };
        Some((Record { flow: self.flows, origin, chain: Vec::new(), floor: 0 }, false))
    }

    /// What the kernel takes an unspecified address for, in the one normal form.
    fn meant(&self, id: SockId, asked: SocketAddr) -> SocketAddr {
        let ip = asked.ip().to_canonical();
        let bound = self.socks[id].bound.map(|ip| ip.to_canonical());
        let ip = match (ip, bound) {
            (IpAddr::V4(Ipv4Addr::UNSPECIFIED), Some(bound @ IpAddr::V4(_))) => bound,
            (IpAddr::V4(Ipv4Addr::UNSPECIFIED), _) => Ipv4Addr::LOCALHOST.into(),
            (IpAddr::V6(Ipv6Addr::UNSPECIFIED), Some(IpAddr::V4(_))) => Ipv4Addr::LOCALHOST.into(),
            (IpAddr::V6(Ipv6Addr::UNSPECIFIED), _) => Ipv6Addr::LOCALHOST.into(),
            _ => ip,
        };
        SocketAddr::new(ip, asked.port())
    }

    /// The provider whose listener was dialled: by its registered address, or where its own socket is.
    fn dialled(&self, meant: SocketAddr) -> Option<usize> {
        let on = |wanted: &dyn Fn(&SocketAddr) -> bool| -> Vec<usize> {
            let providers = self.policy.providers.iter().enumerate();
            providers.filter(|(_, provider)| provider.listeners.iter().any(wanted)).map(|(at, _)| at).collect()
        };
        let exact = on(&|at| *at == meant);
        let there = self.listener(meant).map(|other| self.owned_by(self.socks[other].maker));
        let is_strangers = |&at: &usize| {
            !self.policy.providers[at].direct && there.as_ref().is_some_and(|owners| !owners.contains(&at))
        };
        if let Some(at) = self.highest(&exact).filter(|at| !is_strangers(at)) {
            return Some(at);
        }
        let on_port = on(&|at| at.port() == meant.port());
        self.highest(&there?.into_iter().filter(|at| on_port.contains(at)).collect::<Vec<_>>())
    }

    fn rule(
        &self,
        id: SockId,
        remote: SocketAddr,
        dialer: Option<usize>,
        listener: Option<usize>,
        record: Option<&Record>,
    ) -> Ruling {
        let had = record.map_or(&[][..], |record| &record.chain);
        let record = record.map(|record| Floor { floor: record.floor, depth: record.chain.len() as u32 });
        let mut question = Question { record, dialer, listener, ..Question::to(remote) };
        let mut policy = self.policy.clone();
        let mut trouble = None;
        loop {
            let decision = decide(&policy, &question);
            let mut ruling = self.ruling(&decision, remote);
            let Some(at) = decision.provider else { return ruling };
            let handle = policy.providers[at].handle;
            if decision.verdict == Verdict::Redirect && had.iter().any(|(before, _)| *before == handle) {
                // It was below the flow when the flow had it.
                policy.providers[at].filters.clear();
                continue;
            }
            match decision.verdict {
                Verdict::Refuse => {
                    if ruling.reason == abi::REASON_DEAD {
                        ruling.reason = match trouble {
                            Some(Trouble::Stranger) => abi::REASON_STRANGER,
                            Some(Trouble::Unreachable) => abi::REASON_FAMILY,
                            _ => abi::REASON_DEAD,
                        };
                    }
                    return ruling;
                }
                Verdict::Redirect => match self.listener_of(at, id, remote) {
                    Ok(target) => ruling.target = target,
                    Err(why) => {
                        trouble = Some(why);
                        question.dead.insert(at);
                        continue;
                    }
                },
                Verdict::Direct => {
                    let owner = self.listener(remote).map(|other| self.owned_by(self.socks[other].maker).contains(&at));
                    if owner != Some(true) {
                        ruling.verdict = abi::VERDICT_REFUSE;
                        ruling.reason = if owner.is_none() { abi::REASON_DEAD } else { abi::REASON_STRANGER };
                        return ruling;
                    }
                }
                Verdict::Pass => return ruling,
            }
            let provider = &self.policy.providers[at];
            if provider.in_flight_limit > 0 && self.clients(provider.handle, remote) >= provider.in_flight_limit {
                (ruling.verdict, ruling.reason) = (abi::VERDICT_REFUSE, abi::REASON_RUNAWAY);
            }
            return ruling;
        }
    }

    fn ruling(&self, decision: &Decision, remote: SocketAddr) -> Ruling {
        Ruling {
            verdict: decision.verdict as u32,
            reason: decision.reason as u32,
            provider: decision.provider,
            filter: self.filter_id(decision.filter),
            target: remote,
        }
    }

    /// A listener of the provider's own which this socket reaches; of the destination's family if it can be.
    fn listener_of(&self, at: usize, id: SockId, remote: SocketAddr) -> Result<SocketAddr, Trouble> {
        let provider = &self.policy.providers[at];
        let mut worst = Trouble::Unreachable;
        for same in [true, false] {
            for &listener in &provider.listeners {
                if (listener.is_ipv4() == remote.is_ipv4()) != same
                    || !same && provider.service == Kind::Unaware
                    || !self.reaches(id, listener.is_ipv4())
                {
                    continue;
                }
                match self.listener(listener) {
                    None => worst = worst.max(Trouble::Dead),
                    Some(other) if self.owned_by(self.socks[other].maker).contains(&at) => return Ok(listener),
                    Some(_) => worst = Trouble::Stranger,
                }
            }
        }
        Err(worst)
    }

    fn reaches(&self, id: SockId, v4: bool) -> bool {
        let sock = &self.socks[id];
        let bound = sock.bound.map(|ip| ip.to_canonical().is_ipv4());
        match sock.family {
            Family::V4 => v4,
            Family::V6 => !v4,
            Family::Dual => bound.is_none_or(|bound| bound == v4),
        }
    }

    /// What the kernel itself does with the connection. Returns an errno or 0.
    fn dial(&mut self, id: SockId, target: SocketAddr) -> i32 {
        let meant = self.meant(id, target);
        if self.socks[id].family != Family::V4 && !self.reaches(id, meant.is_ipv4()) {
            return if meant.is_ipv4() { ENETUNREACH } else { EAFNOSUPPORT };
        }
        let sock = &mut self.socks[id];
        sock.error = 0;
        sock.hangs = sock.was_mapped && !meant.is_ipv4();
        sock.was_mapped |= sock.family == Family::Dual && meant.is_ipv4();
        if let Some(decided) = &mut self.socks[id].decided {
            decided.sent = true;
            decided.counted = matches!(decided.verdict, abi::VERDICT_REDIRECT | abi::VERDICT_DIRECT);
        }
        let Some(listener) = self.listener(meant) else {
            self.end_sent(id, abi::HOW_FAILED, ECONNREFUSED);
            let sock = &mut self.socks[id];
            (sock.mute, sock.has_port) = (false, false);
            return ECONNREFUSED;
        };
        let (maker, family) = (self.socks[listener].maker, self.socks[listener].family);
        let child = self.new_sock(maker, family);
        let conn = self.conns.len();
        self.conns.push([End::new(id, meant), End::new(child, meant)]);
        self.socks[child].bound = Some(meant.ip());
        self.socks[child].has_port = true;
        self.socks[child].state = Place::End { conn, side: 1 };
        self.socks[id].state = Place::End { conn, side: 0 };
        self.socks[id].has_port = true;
        if let Place::Listening { queue, .. } = &mut self.socks[listener].state {
            queue.push_back(child);
        }
        self.arrive(id, child, maker, meant.port());
        0
    }
}

fn errno(ruling: &Ruling) -> i32 {
    if ruling.verdict != abi::VERDICT_REFUSE {
        return 0;
    }
    match ruling.reason {
        abi::REASON_BLOCKED => EACCES,
        abi::REASON_OWN_LISTENER | abi::REASON_TOO_DEEP | abi::REASON_RUNAWAY => ELOOP,
        _ => ECONNREFUSED,
    }
}
