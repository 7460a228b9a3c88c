//! The model: what people write, before anything is checked.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::sync::Arc;

use carnet_abi::LINE;

/// A whole policy. Put in force as one, never entry by entry.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Policy {
    /// What happens to a connection that no filter decides.
    pub default: HostAction,
    /// In any order: [`Provider::rank`] orders them. Other types name a provider by its position here.
    pub providers: Vec<Provider>,
    /// The host's own filters, judged before all providers'.
    pub filters: Vec<HostFilter>,
    /// Whether applications' UDP to port 443 is refused, so that they use TCP, which services can have.
    pub block_quic: bool,
    /// Whether applications cannot make sockets which no hook sees: raw ones, UDP-Lite, SCTP and the like.
    pub strict: bool,
}

impl Default for Policy {
    /// Nobody gets anything, and everything goes to its destination.
    fn default() -> Self {
        Self {
            default: HostAction::Permit,
            providers: Vec::new(),
            filters: Vec::new(),
            block_quic: false,
            strict: false,
        }
    }
}

/// One product's redirect service.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Provider {
    /// Unique, for people.
    pub name: String,
    /// The redirect handle: identity in records, from 1, never reused within an engine instance.
    pub handle: u32,
    /// Unique place in the order of providers; lower is earlier.
    pub rank: u16,
    /// Whether the service carries records.
    pub service: Service,
    /// What happens where none of the listeners is the provider's own.
    pub on_dead: OnDead,
    /// Whether its listener may be dialled directly: an explicit proxy.
    pub direct: bool,
    /// Whether it gets connections to where this host has no route.
    pub reach: Reach,
    /// What a connection that it has accepted says of its own address.
    pub sockname: SockName,
    /// Whose listeners and outgoing connections are the provider's. At least one.
    pub owners: Vec<Owner>,
    /// Addresses to redirect to, never wildcards. At least one.
    pub listeners: Vec<SocketAddr>,
    /// Connections handed to this provider at once per destination, the runaway guard. 0: no limit.
    pub in_flight_limit: u32,
    /// The provider's filters.
    pub filters: Vec<Filter>,
}

/// What a service knows of Carnet.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Service {
    /// Carries records.
    Aware,
    /// Knows `SO_ORIGINAL_DST` only. Its connections inherit a record where all flows it holds to their destination
    /// have one identity.
    Unaware,
}

/// What a dead provider means for the connections it should have had.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum OnDead {
    /// Refused.
    Closed,
    /// The next provider is asked.
    Open,
}

/// Where a service can go on to.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum Reach {
    /// Where this host has a route to: it dials destinations itself. Connections to elsewhere fail at `connect()` with
    /// the errno they would have had without the service, and so do those to where a flow has just been refused.
    #[default]
    Routes,
    /// Anywhere: it goes on by a proxy or a tunnel of its own.
    Anywhere,
}

/// What `getsockname()` answers on a connection that a service has accepted.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum SockName {
    /// The socket's own address, the listener's.
    #[default]
    Own,
    /// Where the application asked to go, as with a TPROXY rule: for services that look there.
    Destination,
}

/// Whose listeners and outgoing connections are a provider's.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum Owner {
    /// Everything in a cgroup or below it.
    Cgroup {
        /// cgroup2 id.
        id: u64,
        /// Depth below the root cgroup, which is 0 and cannot be an owner.
        level: u32,
    },
    /// A real uid that nothing else uses.
    Uid(u32),
}

/// A provider's filter.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Filter {
    /// For people; need not be unique.
    pub name: String,
    /// Heavier first, among the provider's own filters; of equal ones, the first given.
    pub weight: u32,
    /// Which connections.
    pub matches: Match,
    /// What happens to them.
    pub action: Action,
}

/// A filter of the host.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct HostFilter {
    /// For people; need not be unique.
    pub name: String,
    /// Heavier first, among the host's own filters; of equal ones, the first given.
    pub weight: u32,
    /// Which connections.
    pub matches: Match,
    /// What happens to them.
    pub action: HostAction,
}

/// Conditions on a connection; all must hold. The default holds for every connection.
#[derive(Clone, Debug, Default, Eq, Hash, PartialEq)]
pub struct Match {
    /// `None`: any.
    pub protocol: Option<Protocol>,
    /// Destination address.
    pub remote: Condition<Prefix>,
    /// Destination port.
    pub ports: Condition<RangeInclusive<u16>>,
    /// Real uid of the origin.
    pub uids: Condition<RangeInclusive<u32>>,
    /// Real gid of the origin.
    pub gids: Condition<RangeInclusive<u32>>,
    /// The origin's running executable.
    pub exes: Condition<Executable>,
    /// The origin's cgroup or one above it.
    pub cgroups: Condition<Line>,
    /// Cookie of the network namespace of the origin's socket.
    pub netns: Condition<u64>,
    /// Position in [`Policy::providers`] of the provider whose owner makes this hop's connection.
    pub via: Condition<usize>,
}

/// What a value may be. Lists are shared, since a named set may be long and many filters' condition.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Condition<T> {
    /// In one of these lists; `None`: any value; no lists at all, or empty ones: none.
    pub only: Option<Vec<Arc<[T]>>>,
    /// And in none of these.
    pub except: Vec<Arc<[T]>>,
}

/// What of IP a filter is for.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[repr(u16)]
pub enum Protocol {
    /// The number is `IPPROTO_TCP`.
    Tcp = 6,
    /// `IPPROTO_UDP`. Never redirected: only what lets through and what blocks is carried out.
    Udp = 17,
}

/// An executable file, as the kernel knows the one that a process runs.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Executable {
    /// Device of its file system in the kernel's encoding, `major << 20 | minor`. Not always what `stat()` tells.
    pub dev: u32,
    /// Inode.
    pub ino: u64,
}

/// A cgroup by its way from the root: the ids of those above it, the highest first (level 1, since all are below the
/// root), and its own; zeros after it. All zero is the root. Levels below the last one here cannot be told apart.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Line(pub [u64; LINE]);

/// What a provider's filter does.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum Action {
    /// To the provider.
    Redirect {
        /// Bytes the provider gets with the connection, at most [`carnet_abi::CONTEXT_MAX`]; empty: none.
        context: Vec<u8>,
    },
    /// To the next provider.
    Skip,
    /// Refused, final.
    Block,
}

/// What a host filter and the default do.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum HostAction {
    /// Straight to the destination.
    Permit,
    /// Refused, final.
    Block,
}

/// Addresses that begin with the same bits. Bits of `address` after the first `length` mean nothing.
///
/// An IPv4 address and its IPv4-mapped form (`::ffff:a.b.c.d`) are one address. So `0.0.0.0/0` is all of IPv4, and an
/// IPv6 prefix shorter than 96 bits that covers `::ffff:0:0`, such as `::/0`, covers all of IPv4 too.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Prefix {
    /// Any address of the prefix.
    pub address: IpAddr,
    /// Leading bits that count: at most 32 for IPv4, 128 for IPv6.
    pub length: u8,
}

/// One filter of a policy.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum FilterRef {
    /// Position in [`Policy::filters`].
    Host(usize),
    /// A provider's.
    Provider {
        /// Position in [`Policy::providers`].
        provider: usize,
        /// Position in [`Provider::filters`].
        filter: usize,
    },
}

impl Policy {
    /// The name of a filter, or `None` where the policy has no such filter.
    pub fn filter_name(&self, filter: FilterRef) -> Option<&str> {
        match filter {
            FilterRef::Host(filter) => Some(&self.filters.get(filter)?.name),
            FilterRef::Provider { provider, filter } => Some(&self.providers.get(provider)?.filters.get(filter)?.name),
        }
    }

    /// Position of the provider that has `remote` among its listeners.
    pub fn listener_at(&self, remote: SocketAddr) -> Option<usize> {
        let is_remote = |listener: &SocketAddr| {
            listener.port() == remote.port() && listener.ip().to_canonical() == remote.ip().to_canonical()
        };
        self.providers.iter().position(|provider| provider.listeners.iter().any(is_remote))
    }
}

impl Owner {
    /// The id of the cgroup. `None`: it is no cgroup.
    pub fn cgroup(&self) -> Option<u64> {
        match *self {
            Self::Cgroup { id, .. } => Some(id),
            Self::Uid(_) => None,
        }
    }
}

impl Match {
    /// Matches connections to this prefix, as this one does otherwise.
    pub fn to(self, remote: impl Into<Prefix>) -> Self {
        Self { remote: Condition::only([remote.into()]), ..self }
    }

    /// Matches connections to these ports, as this one does otherwise.
    pub fn on_ports(self, ports: RangeInclusive<u16>) -> Self {
        Self { ports: Condition::only([ports]), ..self }
    }

    /// Whether anything is asked of who connects.
    pub fn asks_who(&self) -> bool {
        !(self.uids.is_any()
            && self.gids.is_any()
            && self.exes.is_any()
            && self.cgroups.is_any()
            && self.netns.is_any())
    }
}

impl<T> Condition<T> {
    /// Any value.
    pub const ANY: Self = Self { only: None, except: Vec::new() };

    /// One of these.
    pub fn only(values: impl Into<Arc<[T]>>) -> Self {
        Self { only: Some(vec![values.into()]), except: Vec::new() }
    }

    /// None of these.
    pub fn except(values: impl Into<Arc<[T]>>) -> Self {
        Self { only: None, except: vec![values.into()] }
    }

    /// Whether it holds for every value.
    pub fn is_any(&self) -> bool {
        self.only.is_none() && self.except.iter().all(|list| list.is_empty())
    }

    /// Whether it holds for the value of which `is` tells what it is.
    pub fn holds(&self, is: impl Fn(&T) -> bool) -> bool {
        let among = |lists: &[Arc<[T]>]| lists.iter().any(|list| list.iter().any(&is));
        self.only.as_deref().is_none_or(among) && !among(&self.except)
    }
}

impl<T> Default for Condition<T> {
    fn default() -> Self {
        Self::ANY
    }
}

impl Line {
    /// Whether `cgroup` is this one or above it. The root is above all.
    pub fn is_below(&self, cgroup: &Line) -> bool {
        cgroup.0.iter().zip(&self.0).all(|(above, own)| *above == 0 || above == own)
    }

    /// Its own id; `None` for the root.
    pub fn id(&self) -> Option<u64> {
        self.0.iter().copied().take_while(|&id| id != 0).last()
    }
}

impl Prefix {
    /// Whether `address` begins with this prefix. False for every address where [`Prefix::length`] is too long.
    pub fn covers(&self, address: IpAddr) -> bool {
        if self.length > self.longest() {
            return false;
        }
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(prefix), IpAddr::V4(address)) => {
                (prefix.to_bits() ^ address.to_bits()).leading_zeros() >= u32::from(self.length)
            }
            (IpAddr::V4(_), IpAddr::V6(_)) => false,
            (IpAddr::V6(prefix), address) => {
                let address = match address {
                    IpAddr::V4(v4) => v4.to_ipv6_mapped(),
                    IpAddr::V6(v6) => v6,
                };
                (prefix.to_bits() ^ address.to_bits()).leading_zeros() >= u32::from(self.length)
            }
        }
    }

    /// The greatest length for this address's family.
    pub fn longest(&self) -> u8 {
        if self.address.is_ipv4() { 32 } else { 128 }
    }
}

impl From<IpAddr> for Prefix {
    /// The one address.
    fn from(address: IpAddr) -> Self {
        Self { address, length: if address.is_ipv4() { 32 } else { 128 } }
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cgroup { id, .. } => write!(f, "cgroup {id}"),
            Self::Uid(uid) => write!(f, "uid {uid}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(address: &str, length: u8) -> Prefix {
        Prefix { address: address.parse().unwrap(), length }
    }

    #[test]
    fn a_prefix_covers_what_begins_with_it() {
        for (address, length, inside, outside) in [
            ("10.0.0.0", 8, "10.255.255.255", "11.0.0.0"),
            ("10.9.9.9", 8, "10.0.0.0", "9.255.255.255"),
            ("192.0.2.7", 32, "192.0.2.7", "192.0.2.6"),
            ("128.0.0.0", 1, "255.0.0.0", "127.255.255.255"),
            ("0.0.0.0", 0, "203.0.113.9", "2001:db8::1"),
            ("10.0.0.0", 8, "::ffff:10.1.2.3", "::10.1.2.3"),
            ("2001:db8::", 32, "2001:db8:ffff::1", "2001:db9::"),
            ("2001:db8::1", 128, "2001:db8::1", "2001:db8::"),
            ("::ffff:10.0.0.0", 104, "10.1.2.3", "11.1.2.3"),
            ("::", 96, "::10.1.2.3", "10.1.2.3"),
        ] {
            let prefix = prefix(address, length);
            assert!(prefix.covers(inside.parse().unwrap()), "{prefix} must cover {inside}");
            assert!(!prefix.covers(outside.parse().unwrap()), "{prefix} must not cover {outside}");
        }
    }

    #[test]
    fn the_whole_of_ipv6_includes_mapped_ipv4() {
        let all = prefix("::", 0);
        assert!(all.covers("10.0.0.1".parse().unwrap()));
        assert!(all.covers("2001:db8::1".parse().unwrap()));
    }

    #[test]
    fn a_prefix_that_is_too_long_covers_nothing() {
        assert!(!prefix("10.0.0.1", 33).covers("10.0.0.1".parse().unwrap()));
        assert!(!prefix("::1", 129).covers("::1".parse().unwrap()));
    }
}
