//! What must happen to a connect(), said from the socket's side and without the engine.

use carnet_policy::HostAction;

use super::cell::{Bind, Cell, Family, Kind};

/// Which of the connect programs are attached. Those of a family see the sockets of that family, wherever they go.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Hooks {
    Both,
    Only(Family),
}

/// What becomes of one connect().
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Fate {
    /// It comes to the service's listener of this family.
    Redirected(Family),
    /// The service has no listener that this socket could be connected to.
    Refused,
    /// The host's filter lets it go to its destination, where it fares as it would without Carnet.
    Permitted,
    /// The host's filter refuses it.
    Blocked,
    /// No hook saw it, so it fares as it would without Carnet.
    AsWithout,
}

impl Family {
    /// Whether this program is one that sockets of the family need. Those without a family are.
    pub fn has(self, program: &str) -> bool {
        !program.ends_with(if self == Self::V4 { '6' } else { '4' })
    }
}

impl Hooks {
    fn sees(self, family: Family) -> bool {
        self == Self::Both || self == Self::Only(family)
    }
}

/// A service that listens on these families gets every connection that a hook sees, if it can. So where the socket can
/// be connected to the service at all, connect() succeeds, also where it could not have reached the destination: the
/// destination is the service's business, and the service's own socket is bound to nothing.
///
/// So these differ from what happens without Carnet (tests/matrix/without.rs): a source that is loopback and another
/// host, a v6-only socket or one bound to an IPv6 address and a mapped destination, one bound to a mapped address and
/// an IPv6 destination.
///
/// The host's filter, if it has one, holds for all and comes first.
pub fn fate(cell: Cell, hooks: Hooks, host: Option<HostAction>, listening: &[Family]) -> Fate {
    match host {
        _ if !hooks.sees(cell.kind.family()) => return Fate::AsWithout,
        Some(HostAction::Permit) => return Fate::Permitted,
        Some(HostAction::Block) => return Fate::Blocked,
        None => {}
    }
    let other = if cell.family == Family::V4 { Family::V6 } else { Family::V4 };
    let possible = |family: &Family| listening.contains(family) && speaks(cell, *family);
    // The destination's own family is preferred, since the service then sees addresses of one family.
    let chosen = [cell.family, other].into_iter().find(possible);
    chosen.map_or(Fate::Refused, Fate::Redirected)
}

/// Whether such a socket can send packets of this family at all.
pub fn speaks(cell: Cell, family: Family) -> bool {
    match (cell.kind, cell.bind) {
        (Kind::V4, _) => family == Family::V4,
        (Kind::V6Only, _) => family == Family::V6,
        // An IPv6 address makes it v6-only. A mapped one, be it the mapped wildcard, makes it an IPv4 socket.
        (Kind::Dual, Bind::To(bound, _)) => family == bound,
        (Kind::Dual, Bind::Wildcard(Family::V4)) => family == Family::V4,
        (Kind::Dual, Bind::Wildcard(Family::V6) | Bind::Implicit) => true,
    }
}
