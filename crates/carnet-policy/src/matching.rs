//! Whether a filter matches a connection, and if not, why.

use std::fmt;

use crate::{Action, HostAction, Identity, Match, Policy, Protocol, Question, Who};

/// A condition of a [`Match`].
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[non_exhaustive]
pub enum Part {
    /// [`Match::protocol`].
    Protocol,
    /// [`Match::remote`].
    Remote,
    /// [`Match::ports`].
    Ports,
    /// [`Match::via`].
    Via,
    /// [`Match::uids`].
    Uid,
    /// [`Match::gids`].
    Gid,
    /// [`Match::exes`].
    Exe,
    /// [`Match::cgroups`].
    Cgroup,
    /// [`Match::netns`].
    Netns,
}

/// Why a filter does not match a connection.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum Mismatch {
    /// This condition does not hold; the first of those that do not.
    Condition(Part),
    /// The connection is UDP, and what the filter does is for TCP alone.
    Udp,
    /// The filter lets through by who connects, and that is not certain: see [`Who`].
    Uncertain,
}

/// What a filter does, host's and providers' filters alike.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Effect {
    /// Host: to the destination.
    Permit,
    /// Host: nowhere.
    Refuse,
    /// Provider: to it.
    Redirect,
    /// Provider: not to it.
    Skip,
    /// Provider: nowhere.
    Block,
}

impl Match {
    /// `None`: a filter with these conditions that has this effect matches.
    ///
    /// Who connects may be uncertain. Then nothing is let through by who it is, since a service could otherwise pass its
    /// own connections off as another program's. And what a provider's filter does to anyone it could be is done.
    pub(crate) fn mismatch(&self, effect: Effect, policy: &Policy, question: &Question) -> Option<Mismatch> {
        if question.protocol == Protocol::Udp && !effect.is_for_udp() {
            return Some(Mismatch::Udp);
        }
        if let Some(part) = self.fails_where(policy, question) {
            return Some(Mismatch::Condition(part));
        }
        if !self.asks_who() {
            return None;
        }
        let part = match question.who {
            Who::Known(origin) => self.fails_for(&origin),
            _ if effect.lets_through() => return Some(Mismatch::Uncertain),
            Who::Strayed { origin, own } => self.fails_for(&origin).filter(|_| self.fails_for(&own).is_some()),
            Who::Ambiguous { .. } if effect.is_a_providers() => None,
            Who::Ambiguous { origin, own } => {
                self.fails_for(&origin).filter(|_| own.is_none_or(|own| self.fails_for(&own).is_some()))
            }
        };
        part.map(Mismatch::Condition)
    }

    /// The first condition that does not hold for the connection, whoever makes it.
    fn fails_where(&self, policy: &Policy, question: &Question) -> Option<Part> {
        let dialer = question.dialer.filter(|&dialer| dialer < policy.providers.len());
        if self.protocol.is_some_and(|protocol| protocol != question.protocol) {
            Some(Part::Protocol)
        } else if !self.remote.holds(|prefix| prefix.covers(question.remote.ip())) {
            Some(Part::Remote)
        } else if !self.ports.holds(|ports| ports.contains(&question.remote.port())) {
            Some(Part::Ports)
        } else if !self.via.holds(|&provider| dialer == Some(provider)) {
            Some(Part::Via)
        } else {
            None
        }
    }

    /// The first condition that does not hold for `who`.
    fn fails_for(&self, who: &Identity) -> Option<Part> {
        if !self.uids.holds(|uids| uids.contains(&who.uid)) {
            Some(Part::Uid)
        } else if !self.gids.holds(|gids| gids.contains(&who.gid)) {
            Some(Part::Gid)
        } else if !self.exes.holds(|exe| *exe == who.exe) {
            Some(Part::Exe)
        } else if !self.cgroups.holds(|cgroup| who.cgroup.is_below(cgroup)) {
            Some(Part::Cgroup)
        } else if !self.netns.holds(|netns| *netns == who.netns) {
            Some(Part::Netns)
        } else {
            None
        }
    }
}

impl Effect {
    /// Whether the connection gets nearer to its destination by it.
    pub(crate) fn lets_through(self) -> bool {
        matches!(self, Self::Permit | Self::Skip)
    }

    /// Whether it is a provider's, and the connection does not go on by it.
    pub(crate) fn stops(self) -> bool {
        matches!(self, Self::Redirect | Self::Block)
    }

    /// Providers never have UDP, so there is nothing to redirect and nothing to skip.
    pub(crate) fn is_for_udp(self) -> bool {
        !matches!(self, Self::Redirect | Self::Skip)
    }

    /// Whether it refuses the connection.
    pub(crate) fn blocks(self) -> bool {
        matches!(self, Self::Refuse | Self::Block)
    }

    fn is_a_providers(self) -> bool {
        matches!(self, Self::Redirect | Self::Skip | Self::Block)
    }
}

impl From<HostAction> for Effect {
    fn from(action: HostAction) -> Self {
        match action {
            HostAction::Permit => Self::Permit,
            HostAction::Block => Self::Refuse,
        }
    }
}

impl From<&Action> for Effect {
    fn from(action: &Action) -> Self {
        match action {
            Action::Redirect { .. } => Self::Redirect,
            Action::Skip => Self::Skip,
            Action::Block => Self::Block,
        }
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Protocol => "protocol",
            Self::Remote => "destination address",
            Self::Ports => "destination port",
            Self::Via => "provider whose connection it is",
            Self::Uid => "uid",
            Self::Gid => "gid",
            Self::Exe => "executable",
            Self::Cgroup => "cgroup",
            Self::Netns => "network namespace",
        })
    }
}
