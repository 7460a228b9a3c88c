//! What can be wrong with a policy.

use std::fmt;
use std::net::SocketAddr;
use std::ops::RangeInclusive;

use carnet_abi::{CONTEXT_MAX, MAX_CLASSES, MAX_LISTENERS, MAX_OWNERS, MAX_PROVIDERS, MAX_RULES, MAX_VALUES};

use crate::{Owner, Prefix};

/// A policy cannot be put in force. Holds every mistake, not only the first.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub struct Error {
    mistakes: Vec<Mistake>,
}

/// One mistake in a policy.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Mistake {
    /// More than [`MAX_PROVIDERS`].
    #[error("{count} providers, at most {MAX_PROVIDERS} fit: remove some")]
    TooManyProviders {
        /// How many there are.
        count: usize,
    },
    /// More than [`MAX_RULES`], the host's and all providers' together.
    #[error("{count} filters in all, at most {MAX_RULES} fit: remove or merge some")]
    TooManyFilters {
        /// How many there are.
        count: usize,
    },
    /// A provider's name is empty.
    #[error("provider number {number} has no name: give it one")]
    NoName {
        /// Place in the policy, from 1.
        number: usize,
    },
    /// Two providers have one name.
    #[error("two providers are named {name:?}: rename one")]
    DuplicateName {
        /// The name.
        name: String,
    },
    /// Two providers have one rank, so neither is first.
    #[error("providers {first:?} and {second:?} both have rank {rank}: ranks are unique, change one")]
    DuplicateRank {
        /// The rank.
        rank: u16,
        /// Provider.
        first: String,
        /// Provider.
        second: String,
    },
    /// Handle 0 means "none" in records and events.
    #[error("provider {provider:?} has handle 0: handles count from 1")]
    ZeroHandle {
        /// Name.
        provider: String,
    },
    /// Two providers have one handle, so records could not tell them apart.
    #[error("providers {first:?} and {second:?} both have handle {handle}: handles are never reused")]
    DuplicateHandle {
        /// The handle.
        handle: u32,
        /// Provider.
        first: String,
        /// Provider.
        second: String,
    },
    /// There is nowhere to redirect to.
    #[error("provider {provider:?} has no listener: say where it listens")]
    NoListener {
        /// Name.
        provider: String,
    },
    /// More than [`MAX_LISTENERS`].
    #[error("provider {provider:?} has {count} listeners, at most {MAX_LISTENERS} fit: remove some")]
    TooManyListeners {
        /// Name.
        provider: String,
        /// How many there are.
        count: usize,
    },
    /// A wildcard address cannot be dialled.
    #[error("provider {provider:?}: {listener} is a wildcard, name the address to dial, such as 127.0.0.1")]
    WildcardListener {
        /// Name.
        provider: String,
        /// As given.
        listener: SocketAddr,
    },
    /// A multicast or broadcast address cannot be dialled.
    #[error("provider {provider:?}: {listener} is not an address that TCP can dial, use a unicast one")]
    UndialableListener {
        /// Name.
        provider: String,
        /// As given.
        listener: SocketAddr,
    },
    /// Port 0 cannot be dialled.
    #[error("provider {provider:?}: {listener} has port 0, name the port it listens on")]
    NoPort {
        /// Name.
        provider: String,
        /// As given.
        listener: SocketAddr,
    },
    /// Two listeners are the same, of one provider or of two.
    #[error("{listener} is given twice, for providers {first:?} and {second:?}: a listener is one provider's, once")]
    DuplicateListener {
        /// The address.
        listener: SocketAddr,
        /// Provider.
        first: String,
        /// Provider.
        second: String,
    },
    /// Without an owner the provider's own connections could not be told from an application's, and would loop.
    #[error("provider {provider:?} has no owner: name its cgroup or a uid that nothing else uses")]
    NoOwner {
        /// Name.
        provider: String,
    },
    /// More than [`MAX_OWNERS`].
    #[error("provider {provider:?} has {count} owners, at most {MAX_OWNERS} fit: use a cgroup that holds them")]
    TooManyOwners {
        /// Name.
        provider: String,
        /// How many there are.
        count: usize,
    },
    /// The root cgroup holds every process.
    #[error(
        "provider {provider:?} is owned by the root cgroup, which holds every process: give it a cgroup of its own"
    )]
    RootOwner {
        /// Name.
        provider: String,
    },
    /// Two owners are the same, of one provider or of two.
    #[error("{owner} is given twice, for providers {first:?} and {second:?}: an owner is one provider's, once")]
    DuplicateOwner {
        /// The owner.
        owner: Owner,
        /// Provider.
        first: String,
        /// Provider.
        second: String,
    },
    /// Longer than [`CONTEXT_MAX`].
    #[error("{filter}: its context is {size} bytes, at most {CONTEXT_MAX} fit: shorten it")]
    ContextTooLong {
        /// Which filter.
        filter: FilterName,
        /// Bytes.
        size: usize,
    },
    /// More bits than an address of the family has.
    #[error("{filter}: {prefix} is longer than its address, at most /{} is possible", prefix.longest())]
    PrefixTooLong {
        /// Which filter.
        filter: FilterName,
        /// As given.
        prefix: Prefix,
    },
    /// A range that begins after its end.
    #[error("{filter}: ports {}-{} are none, give the lower one first", ports.start(), ports.end())]
    NoPorts {
        /// Which filter.
        filter: FilterName,
        /// As given.
        ports: RangeInclusive<u16>,
    },
    /// A range of uids that begins after its end.
    #[error("{filter}: uids {}-{} are none, give the lower one first", uids.start(), uids.end())]
    NoUids {
        /// Which filter.
        filter: FilterName,
        /// As given.
        uids: RangeInclusive<u32>,
    },
    /// A range of gids that begins after its end.
    #[error("{filter}: gids {}-{} are none, give the lower one first", gids.start(), gids.end())]
    NoGids {
        /// Which filter.
        filter: FilterName,
        /// As given.
        gids: RangeInclusive<u32>,
    },
    /// A cgroup without one of those above it.
    #[error("{filter}: the way to cgroup {id} has a gap: name every cgroup above it, the highest first")]
    BrokenLine {
        /// Which filter.
        filter: FilterName,
        /// Of the cgroup.
        id: u64,
    },
    /// One cgroup in two places.
    #[error("{filter}: cgroup {id} is elsewhere than another filter says: look it up again")]
    MovedCgroup {
        /// Which filter.
        filter: FilterName,
        /// Of the cgroup.
        id: u64,
    },
    /// A provider that is not in the policy.
    #[error("{filter}: there is no provider number {provider} that it could be via: remove it")]
    UnknownVia {
        /// Which filter.
        filter: FilterName,
        /// Position in the policy, from 0.
        provider: usize,
    },
    /// A flow goes to ever higher ranks, so a provider never has a connection of a later one, or of its own.
    #[error(
        "{filter}: it never gets a connection of {via:?}, which does not come before it:          remove that, or give {via:?} a lower rank"
    )]
    LateVia {
        /// Which filter.
        filter: FilterName,
        /// Name of the provider.
        via: String,
    },
    /// A provider's filter that redirects or skips UDP alone.
    #[error("{filter}: no provider gets UDP, so it has no effect: block UDP, or leave the protocol out")]
    NoUdp {
        /// Which filter.
        filter: FilterName,
    },
    /// More than [`MAX_CLASSES`].
    #[error(
        "the filters' conditions overlap in more than {} ways: use fewer and larger sets of prefixes, shared by filters",
        MAX_CLASSES - 2
    )]
    TooManyClasses,
    /// More than [`MAX_VALUES`].
    #[error(
        "the filters name {count} executables, cgroups, network namespaces, users and groups, at most {MAX_VALUES} fit: remove some"
    )]
    TooManyValues {
        /// How many.
        count: usize,
    },
    /// More than the trees of an image can hold.
    #[error("the filters' addresses make {count} ranges, more than fit: remove some prefixes, or use shorter ones")]
    TooManyRanges {
        /// How many.
        count: usize,
    },
}

/// Names a filter in a message.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct FilterName {
    /// Name of the provider; `None`: the host's filter.
    pub provider: Option<String>,
    /// Name of the filter.
    pub filter: String,
}

impl Error {
    /// Of at least one mistake.
    pub(crate) fn new(mistakes: Vec<Mistake>) -> Self {
        debug_assert!(!mistakes.is_empty());
        Self { mistakes }
    }

    /// All mistakes, at least one.
    pub fn mistakes(&self) -> &[Mistake] {
        &self.mistakes
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the policy cannot be used: ")?;
        for (index, mistake) in self.mistakes.iter().enumerate() {
            write!(f, "{}{mistake}", if index == 0 { "" } else { "; " })?;
        }
        Ok(())
    }
}

impl fmt::Display for FilterName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.provider {
            Some(provider) => write!(f, "filter {:?} of provider {provider:?}", self.filter),
            None => write!(f, "host filter {:?}", self.filter),
        }
    }
}
