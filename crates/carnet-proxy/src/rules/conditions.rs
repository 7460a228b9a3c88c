use std::{net::SocketAddr, path::PathBuf};

use super::{
    Facts, Origin, Protocol,
    ranges::{Prefixes, Ranges},
};

/// What must be true of a flow besides its name, which the index knows.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Conditions {
    pub(super) early: Early,
    pub(super) late: Late,
    /// How many lists the name may be in; `None`: there is no condition on it.
    pub(super) name_lists: Option<usize>,
}

/// Conditions on what is known before a byte has come. All must hold; one that is not there holds.
#[derive(Clone, Debug, Default, Eq, Hash, PartialEq)]
pub(super) struct Early {
    pub(super) to: Option<Prefixes>,
    pub(super) ports: Option<Ranges<u16>>,
    pub(super) uids: Option<Ranges<u32>>,
    pub(super) exes: Option<Sorted<PathBuf>>,
    /// Without a slash at the end.
    pub(super) cgroups: Option<Sorted<String>>,
}

/// Conditions on what only the client's first bytes tell.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Late {
    /// `None` is none of those that are known.
    pub(super) protocols: Option<Sorted<Option<Protocol>>>,
    pub(super) alpn: Option<Sorted<String>>,
    pub(super) ja4: Option<Sorted<String>>,
    pub(super) ech: Option<bool>,
}

/// Values in their order.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(super) struct Sorted<T>(Box<[T]>);

impl Conditions {
    pub(super) fn hold(&self, facts: &Facts) -> bool {
        self.early.hold(facts.destination, &facts.origin) && self.late.hold(facts)
    }

    /// Whether it has to be known what the client sends.
    pub(super) fn need_bytes(&self) -> bool {
        self.name_lists.is_some() || self.late != Late::default()
    }

    /// Whether one of them has no value, so that they hold for nothing.
    pub(super) fn never_hold(&self) -> bool {
        let Early { to, ports, uids, exes, cgroups } = &self.early;
        let Late { protocols, alpn, ja4, ech: _ } = &self.late;
        self.name_lists == Some(0)
            || to.as_ref().is_some_and(Prefixes::is_empty)
            || ports.as_ref().is_some_and(Ranges::is_empty)
            || uids.as_ref().is_some_and(Ranges::is_empty)
            || exes.as_ref().is_some_and(Sorted::is_empty)
            || cgroups.as_ref().is_some_and(Sorted::is_empty)
            || protocols.as_ref().is_some_and(Sorted::is_empty)
            || alpn.as_ref().is_some_and(Sorted::is_empty)
            || ja4.as_ref().is_some_and(Sorted::is_empty)
    }
}

impl Early {
    pub(super) fn hold(&self, destination: SocketAddr, origin: &Origin) -> bool {
        let Self { to, ports, uids, exes, cgroups } = self;
        ports.as_ref().is_none_or(|ports| ports.contain(destination.port()))
            && to.as_ref().is_none_or(|to| to.contain(destination.ip()))
            && uids.as_ref().is_none_or(|uids| origin.uid.is_some_and(|uid| uids.contain(uid)))
            && exes.as_ref().is_none_or(|exes| origin.exe.is_some_and(|exe| exes.has(|one| (**one).cmp(exe))))
            && cgroups.as_ref().is_none_or(|cgroups| origin.cgroup.is_some_and(|own| is_within(own, cgroups)))
    }
}

impl Late {
    fn hold(&self, facts: &Facts) -> bool {
        let Self { protocols, alpn, ja4, ech } = self;
        let is_offered = |alpn: &Sorted<String>| facts.alpn.iter().any(|offered| alpn.has(|one| one.cmp(offered)));
        protocols.as_ref().is_none_or(|protocols| protocols.has(|one| one.cmp(&facts.protocol)))
            && alpn.as_ref().is_none_or(is_offered)
            && ja4.as_ref().is_none_or(|ja4| facts.ja4.is_some_and(|own| ja4.has(|one| (**one).cmp(own))))
            && ech.is_none_or(|ech| facts.protocol == Some(Protocol::Tls) && ech == facts.ech)
    }
}

impl<T: Ord> Sorted<T> {
    pub(super) fn of(mut values: Vec<T>) -> Self {
        values.sort_unstable();
        values.dedup();
        Self(values.into())
    }

    fn has(&self, compare: impl FnMut(&T) -> std::cmp::Ordering) -> bool {
        self.0.binary_search_by(compare).is_ok()
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Whether a cgroup is one of these, or below one.
fn is_within(cgroup: &str, all: &Sorted<String>) -> bool {
    let below = |one: &String| cgroup.strip_prefix(&**one);
    all.0.iter().filter_map(below).any(|rest| rest.is_empty() || rest.starts_with('/'))
}
