//! What becomes of a flow, in words.

use std::collections::BTreeSet;

use carnet_policy::file::PolicyFile;
use carnet_policy::{
    Action, Assumed, Decision, Fate, FilterRef, Hop, HostAction, Mismatch, Part, Policy, Provider, Reason, Stop,
    Verdict,
};
use serde::Serialize;

use crate::explain::{Arguments, is_special, judged};

/// What becomes of a flow. Serializes to the object of `--json`.
#[derive(Debug, Serialize)]
pub struct Account {
    version: &'static str,
    file: String,
    /// As the kernel takes it.
    pub to: String,
    protocol: &'static str,
    pub hops: Vec<HopAccount>,
    /// Names of the providers that have it, in order.
    pub services: Vec<String>,
    /// `destination`, `refused` or `proxy`.
    pub end: &'static str,
    /// What was not said of who connects, and filters ask for.
    unsaid: Vec<&'static str>,
    /// What is taken for granted of who connects, in words.
    pub assumed: Vec<String>,
}

/// What an account is made of besides the policy.
pub struct Known<'k> {
    pub file: &'k PolicyFile,
    /// Providers that a socket of the destination's family does not get to.
    pub unreachable: BTreeSet<usize>,
    pub unsaid: Vec<&'static str>,
    pub assumed: Vec<String>,
}

/// One connection.
#[derive(Debug, Serialize)]
pub struct HopAccount {
    /// The provider whose connection it is; `None`: the application's.
    pub by: Option<String>,
    pub filters: Vec<FilterAccount>,
    /// `pass`, `redirect`, `direct` or `refuse`.
    verdict: &'static str,
    /// Why, as in events.
    reason: &'static str,
    /// Where it gets to, in words.
    pub outcome: String,
    /// The provider that has it then.
    provider: Option<String>,
    /// What is taken for granted of that one, in words.
    pub assumed: Option<String>,
}

/// One filter.
#[derive(Debug, Serialize)]
pub struct FilterAccount {
    /// The provider whose it is; `None`: the host's.
    pub provider: Option<String>,
    pub filter: String,
    pub weight: u32,
    pub action: &'static str,
    /// One word of what became of it.
    pub fate: &'static str,
    /// The key of the condition that does not hold.
    condition: Option<&'static str>,
    /// What became of it, in words.
    pub why: String,
}

impl Account {
    pub fn new(arguments: &Arguments, policy: &Policy, hops: &[Hop], known: &Known) -> Self {
        let told = Told { policy, known, is_special: is_special(arguments.to), is_v4: judged(arguments.to).is_ipv4() };
        let services = hops.iter().filter_map(|hop| match hop.to {
            Stop::Service { provider, .. } | Stop::Proxy { provider } => Some(told.provider(provider)),
            _ => None,
        });
        let end = match hops.last().map(|hop| hop.to) {
            Some(Stop::Destination) => "destination",
            Some(Stop::Proxy { .. }) => "proxy",
            _ => "refused",
        };
        Self {
            version: env!("CARGO_PKG_VERSION"),
            file: arguments.file.display().to_string(),
            to: judged(arguments.to).to_string(),
            protocol: if arguments.udp { "udp" } else { "tcp" },
            hops: if hops.is_empty() { vec![quic()] } else { hops.iter().map(|hop| told.hop(hop)).collect() },
            services: services.collect(),
            end,
            unsaid: known.unsaid.clone(),
            assumed: known.assumed.clone(),
        }
    }

    /// Whether the connection gets to its destination, or to the proxy that it dials.
    pub fn arrives(&self) -> bool {
        self.end != "refused"
    }

    /// One object, one line.
    pub fn json(&self) -> String {
        // Strings, numbers and lists always have a JSON form.
        serde_json::to_string(self).unwrap_or_default() + "\n"
    }
}

struct Told<'p> {
    policy: &'p Policy,
    known: &'p Known<'p>,
    is_v4: bool,
    /// No provider gets connections to the destination.
    is_special: bool,
}

impl Told<'_> {
    fn hop(&self, hop: &Hop) -> HopAccount {
        let decision = &hop.explanation.decision;
        let assumed = match hop.to {
            Stop::Service { provider, assumed } => Some(self.assumed(provider, assumed)),
            Stop::Proxy { provider } => Some(format!(
                "{:?} goes on to where its client tells it to, so nothing more can be said",
                self.provider(provider)
            )),
            _ => None,
        };
        HopAccount {
            by: hop.question.dialer.map(|at| self.provider(at)),
            filters: hop.explanation.filters.iter().map(|(filter, fate)| self.filter(*filter, *fate)).collect(),
            verdict: verdict(decision.verdict),
            reason: self.reason(decision),
            outcome: self.outcome(decision),
            provider: decision.provider.map(|at| self.provider(at)),
            assumed,
        }
    }

    fn filter(&self, at: FilterRef, fate: Fate) -> FilterAccount {
        let (weight, action) = match at {
            FilterRef::Host(at) => {
                self.policy.filters.get(at).map(|filter| (filter.weight, host_action(filter.action)))
            }
            FilterRef::Provider { provider, filter } => (self.policy.providers.get(provider))
                .and_then(|provider| provider.filters.get(filter))
                .map(|filter| (filter.weight, action(&filter.action))),
        }
        .unwrap_or_default();
        let (fate_name, why) = self.fate(at, fate);
        FilterAccount {
            provider: provider_of(at).map(|at| self.provider(at)),
            filter: self.policy.filter_name(at).unwrap_or_default().to_owned(),
            weight,
            action,
            fate: fate_name,
            condition: match fate {
                Fate::Mismatch(Mismatch::Condition(part)) => Some(condition(part)),
                _ => None,
            },
            why,
        }
    }

    fn fate(&self, at: FilterRef, fate: Fate) -> (&'static str, String) {
        match fate {
            Fate::Decides => ("decides", "decides".into()),
            Fate::Skips => ("skips", "skips its provider".into()),
            Fate::DeadAndOpen => {
                let why = match provider_of(at).and_then(|at| self.no_listener(at)) {
                    Some(lacks) => format!("redirects, but the provider has {lacks}, and on-dead is \"open\""),
                    None => "redirects, but the provider is dead, and on-dead is \"open\"".into(),
                };
                ("dead-and-open", why)
            }
            Fate::Mismatch(mismatch) => ("mismatch", self.why_not(mismatch)),
            Fate::Outweighed(by) => {
                let is_heavier = self.weight(by) > self.weight(at);
                let how = if is_heavier { "is heavier" } else { "is as heavy, and before it" };
                ("outweighed", format!("matches, but {} {how}", self.named(by, at)))
            }
            Fate::TooLate(by) => ("too-late", format!("matches, but {} decides before", self.named(by, at))),
            Fate::BelowFloor { .. } if self.is_special => {
                ("special", "not asked: no provider gets connections to such addresses".into())
            }
            Fate::BelowFloor { floor } => {
                ("below-floor", format!("not asked: the flow has been at rank {floor}, and this one is not above it"))
            }
            Fate::Terminal => ("terminal", "not asked: an explicit proxy connects, and without a record".into()),
            Fate::Dialled => ("dialled", "not asked: the connection is to a provider's own listener".into()),
            _ => ("unknown", "for a reason this version does not know".into()),
        }
    }

    fn outcome(&self, decision: &Decision) -> String {
        let by = decision.filter.map(|filter| self.full(filter));
        let provider = decision.provider.and_then(|at| self.policy.providers.get(at));
        let name = provider.map_or_else(String::new, |provider| format!("{:?}", provider.name));
        match (decision.verdict, decision.reason) {
            (Verdict::Redirect, _) => {
                let place = provider.map_or_else(String::new, place);
                format!("to the provider {name}{place}")
            }
            (Verdict::Direct, _) => format!("to the provider {name}, which may be dialled"),
            (Verdict::Pass, Reason::Terminal) => {
                "to its destination: an explicit proxy connects, and without a record".into()
            }
            (Verdict::Pass, Reason::Default) if self.is_special => {
                "to its destination: broadcast, multicast and link-local addresses are left alone".into()
            }
            (Verdict::Pass, _) => match by {
                Some(by) => format!("to its destination: {by} permits it"),
                None => "to its destination: no filter decides, and the default is \"permit\"".into(),
            },
            (Verdict::Refuse, Reason::Blocked) => match by {
                Some(by) => format!("refused (EACCES): {by} blocks it"),
                None => "refused (EACCES): no filter decides, and the default is \"block\"".into(),
            },
            (Verdict::Refuse, Reason::Dead) => {
                let how = match decision.provider.and_then(|at| self.no_listener(at)) {
                    Some(lacks) => format!("has {lacks}"),
                    None => "is dead".into(),
                };
                format!("refused (ECONNREFUSED): the provider {name} {how}, and on-dead is \"closed\"")
            }
            (Verdict::Refuse, Reason::OwnListener) => {
                format!("refused (ELOOP): it is the listener of the provider {name}, which the flow has had")
            }
            (Verdict::Refuse, Reason::NotDirect) => {
                format!("refused (ECONNREFUSED): it is the listener of the provider {name}, which is not to be dialled")
            }
            (Verdict::Refuse, Reason::TooDeep) => {
                format!(
                    "refused (ELOOP): as many services have had it as a record has room for, and {name} is the next"
                )
            }
            (Verdict::Refuse, _) => "refused".into(),
        }
    }

    fn assumed(&self, provider: usize, assumed: Assumed) -> String {
        let name = self.provider(provider);
        let listeners = self.policy.providers.get(provider).map_or(&[][..], |provider| &provider.listeners);
        let is_crossed = !self.is_v4 && listeners.iter().all(|listener| listener.ip().to_canonical().is_ipv4());
        let socket = if is_crossed { "the socket is not for IPv6 alone; " } else { "" };
        let service = match assumed {
            Assumed::SetsRecord => format!("{name:?} goes on to the same destination, and sets the record"),
            Assumed::OneIdentity => {
                format!("{name:?} goes on to the same destination, and all flows it holds to there are of one identity")
            }
            _ => format!("{name:?} goes on to the same destination"),
        };
        format!("{socket}{service}")
    }

    /// What a provider does not have that its connection would need.
    fn no_listener(&self, provider: usize) -> Option<&'static str> {
        let lacks = if self.is_v4 { "no listener that an IPv4 socket gets to" } else { "no IPv6 listener" };
        self.known.unreachable.contains(&provider).then_some(lacks)
    }

    /// As the flow log has it.
    fn reason(&self, decision: &Decision) -> &'static str {
        match decision.reason {
            Reason::Dead if decision.provider.is_some_and(|at| self.no_listener(at).is_some()) => "family",
            other => reason(other),
        }
    }

    fn why_not(&self, mismatch: Mismatch) -> String {
        match mismatch {
            Mismatch::Condition(part) => {
                let key = condition(part);
                if self.known.unsaid.contains(&key) {
                    return format!("does not match: {key} (none was given: --{key})");
                }
                format!("does not match: {key}")
            }
            Mismatch::Udp => "does not match: providers do not get UDP".into(),
            Mismatch::Uncertain => "does not match: it lets through by who connects, and that is not certain".into(),
            _ => "does not match".into(),
        }
    }

    fn weight(&self, filter: FilterRef) -> Option<u32> {
        match filter {
            FilterRef::Host(at) => Some(self.policy.filters.get(at)?.weight),
            FilterRef::Provider { provider, filter } => {
                Some(self.policy.providers.get(provider)?.filters.get(filter)?.weight)
            }
        }
    }

    /// A filter, for one of another owner or of the same.
    fn named(&self, filter: FilterRef, from: FilterRef) -> String {
        let name = self.policy.filter_name(filter).unwrap_or_default();
        let named = if provider_of(filter) == provider_of(from) { format!("{name:?}") } else { self.full(filter) };
        // Names of filters need not be unique.
        match self.policy.filter_name(from) == Some(name) {
            true => format!("{named} (line {})", self.known.file.filter_place(filter).line),
            false => named,
        }
    }

    fn full(&self, filter: FilterRef) -> String {
        let name = self.policy.filter_name(filter).unwrap_or_default();
        match provider_of(filter) {
            None => format!("the host's filter {name:?}"),
            Some(provider) => format!("the filter {name:?} of {:?}", self.provider(provider)),
        }
    }

    fn provider(&self, at: usize) -> String {
        self.policy.providers.get(at).map_or_else(String::new, |provider| provider.name.clone())
    }
}

/// What `block-quic` refuses.
fn quic() -> HopAccount {
    HopAccount {
        by: None,
        filters: Vec::new(),
        verdict: verdict(Verdict::Refuse),
        reason: "quic",
        outcome: "refused (ECONNREFUSED): block-quic refuses UDP to port 443, whatever filters say".into(),
        provider: None,
        assumed: None,
    }
}

fn provider_of(filter: FilterRef) -> Option<usize> {
    match filter {
        FilterRef::Host(_) => None,
        FilterRef::Provider { provider, .. } => Some(provider),
    }
}

fn place(provider: &Provider) -> String {
    let listeners: Vec<_> = provider.listeners.iter().map(ToString::to_string).collect();
    format!(" (rank {}), which listens on {}", provider.rank, listeners.join(", "))
}

/// The key in the file.
fn condition(part: Part) -> &'static str {
    match part {
        Part::Protocol => "protocol",
        Part::Remote => "remote",
        Part::Ports => "remote-port",
        Part::Via => "via",
        Part::Uid => "uid",
        Part::Gid => "gid",
        Part::Exe => "exe",
        Part::Cgroup => "cgroup",
        Part::Netns => "netns",
        _ => "another condition",
    }
}

fn action(action: &Action) -> &'static str {
    match action {
        Action::Redirect { .. } => "redirect",
        Action::Skip => "skip",
        Action::Block => "block",
    }
}

fn host_action(action: HostAction) -> &'static str {
    match action {
        HostAction::Permit => "permit",
        HostAction::Block => "block",
    }
}

fn verdict(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Pass => "pass",
        Verdict::Redirect => "redirect",
        Verdict::Direct => "direct",
        Verdict::Refuse => "refuse",
    }
}

/// As the flow log has them.
fn reason(reason: Reason) -> &'static str {
    match reason {
        Reason::Rule => "rule",
        Reason::Default => "default",
        Reason::Dead => "dead",
        Reason::Blocked => "blocked",
        Reason::OwnListener => "own-listener",
        Reason::NotDirect => "not-direct",
        Reason::Terminal => "terminal",
        Reason::TooDeep => "too-deep",
        _ => "unknown",
    }
}
