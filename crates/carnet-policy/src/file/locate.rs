//! Mistakes in the policy as a whole, and where in the file they are.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::ops::Range;

use carnet_abi::{MAX_LISTENERS, MAX_OWNERS, MAX_PROVIDERS, MAX_RULES};
use toml::Spanned;

use crate::file::entry::ProviderEntry;
use crate::file::finding::{Finding, Id};
use crate::file::read::Reader;
use crate::file::sets::known;
use crate::file::source::shown;
use crate::file::{Mistakes, PolicyFile, Resolved};
use crate::{FilterName, Image, Mistake, Owner, Policy, Progress};

/// Names of providers: unique, and there where they are used.
pub(super) fn check_names(file: &PolicyFile, reader: &mut Reader) {
    let mut first: HashMap<&str, Range<usize>> = HashMap::new();
    for name in file.providers.iter().filter_map(|entry| entry.name.as_ref()) {
        match first.get(&**name.get_ref()) {
            Some(span) => {
                let what = format!("two providers are named {:?}", shown(name.get_ref()));
                let finding = Finding::new(Id::Duplicate, reader.texts.place(name.span()), what, "rename one");
                reader.findings.push(finding.also(reader.texts.place(span.clone()), "the first is here"));
            }
            None => {
                first.insert(name.get_ref(), name.span());
            }
        }
    }
    let names: Vec<&str> = file.providers.iter().filter_map(|entry| Some(&**entry.name.as_ref()?.get_ref())).collect();
    let host = file.filters.iter().map(|entry| &entry.conditions);
    let conditions = host.chain(file.provider_filters().map(|(_, _, entry)| &entry.conditions));
    for via in conditions.flat_map(|conditions| conditions.via.all()) {
        if !first.contains_key(&**via.get_ref()) {
            let what = format!("there is no provider {:?}", shown(via.get_ref()));
            let action = known(via.get_ref(), &names, "name a provider of this file");
            reader.mistake(Id::UnknownProvider, via.span(), what, action);
        }
    }
}

impl PolicyFile {
    /// What is wrong with the policy that has been made of this file, except for what follows from mistakes that have
    /// been told.
    pub(super) fn locate_mistakes(&self, policy: &Policy) -> Vec<Finding> {
        // Mistakes tell names, and those need not be unique: positions in their place are.
        let mut numbered = policy.clone();
        for (at, provider) in numbered.providers.iter_mut().enumerate() {
            provider.name = at.to_string();
            for (at, filter) in provider.filters.iter_mut().enumerate() {
                filter.name = at.to_string();
            }
        }
        for (at, filter) in numbered.filters.iter_mut().enumerate() {
            filter.name = at.to_string();
        }
        match numbered.validate() {
            Ok(()) => Vec::new(),
            Err(error) => error.mistakes().iter().filter_map(|mistake| self.locate(policy, mistake)).collect(),
        }
    }

    /// The image of a policy of this file; `progress` hears how far it is. There are policies that only compiling tells
    /// are too large.
    pub fn compile(
        &self,
        resolved: &Resolved,
        generation: u64,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Image, Mistakes> {
        resolved.policy.compile_with(generation, progress).map_err(|error| {
            let place = |mistake: &Mistake| Finding::new(Id::TooMany, self.texts.place(0..0), mistake.to_string(), "");
            Mistakes::all(error.mistakes().iter().map(place).collect())
        })
    }

    /// `None` for what has been told.
    fn locate(&self, policy: &Policy, mistake: &Mistake) -> Option<Finding> {
        let at = |id, span, what: String, action: &str| Some(Finding::new(id, self.texts.place(span), what, action));
        match mistake {
            Mistake::TooManyProviders { count } => {
                let span = self.providers.get(MAX_PROVIDERS)?.name_span();
                at(Id::TooMany, span, format!("{count} providers, at most {MAX_PROVIDERS} fit"), "remove some")
            }
            Mistake::TooManyFilters { count } => {
                let what = format!("{count} filters in all, at most {MAX_RULES} fit");
                at(Id::TooMany, self.filter_spans().nth(MAX_RULES)?, what, "remove or merge some")
            }
            Mistake::DuplicateRank { rank, first, second } => {
                let (first, second) = (self.provider(first)?, self.provider(second)?);
                let what = format!("two providers have rank {rank}");
                let finding = at(Id::Duplicate, second.rank.as_ref()?.span(), what, "ranks are unique: change one")?;
                Some(finding.also(self.texts.place(first.rank.as_ref()?.span()), "the first is here"))
            }
            Mistake::NoListener { provider } => {
                let span = self.provider(provider)?.listeners.as_ref()?.span();
                let action = "write where it listens, such as [\"127.0.0.1:15001\"]";
                at(Id::MissingKey, span, "a provider needs a listener".into(), action)
            }
            Mistake::TooManyListeners { provider, count } => {
                let span = self.provider(provider)?.listeners.as_ref()?.span();
                at(Id::TooMany, span, format!("{count} listeners, at most {MAX_LISTENERS} fit"), "remove some")
            }
            Mistake::WildcardListener { provider, listener } => {
                let what = format!("{listener} is a wildcard, which nobody can dial");
                let address = if listener.is_ipv4() { "127.0.0.1" } else { "[::1]" };
                let action = format!("name the address to dial: \"{address}:{}\"", listener.port());
                at(Id::WrongListener, self.listener_spans(provider, *listener).next()?, what, &action)
            }
            Mistake::UndialableListener { provider, listener } => {
                let what = format!("{listener} is not an address that TCP can dial");
                let span = self.listener_spans(provider, *listener).next()?;
                at(Id::WrongListener, span, what, "use a unicast address")
            }
            Mistake::NoPort { provider, listener } => {
                let span = self.listener_spans(provider, *listener).next()?;
                at(Id::WrongListener, span, format!("{listener} has port 0"), "name the port that it listens on")
            }
            Mistake::DuplicateListener { listener, first, second } => {
                let (first, second) =
                    both(self.listener_spans(first, *listener), self.listener_spans(second, *listener))?;
                let what = format!("{listener} is given twice");
                let finding = at(Id::Duplicate, second, what, "a listener is one provider's, once")?;
                Some(finding.also(self.texts.place(first), "the first is here"))
            }
            Mistake::NoOwner { provider } => {
                let span = self.provider(provider)?.owners.as_ref()?.span();
                let action = "name its cgroup, or a user that nothing else runs as";
                at(Id::MissingKey, span, "a provider needs an owner".into(), action)
            }
            Mistake::TooManyOwners { provider, count } => {
                let span = self.provider(provider)?.owners.as_ref()?.span();
                let action = "use a cgroup that holds them";
                at(Id::TooMany, span, format!("{count} owners, at most {MAX_OWNERS} fit"), action)
            }
            Mistake::RootOwner { provider } => {
                let is_root = |owner: &Owner| matches!(owner, Owner::Cgroup { level: 0, .. });
                let span = self.owner_spans(policy, provider, is_root).next()?;
                at(
                    Id::WrongOwner,
                    span,
                    "every process is in the root cgroup".into(),
                    "give the provider a cgroup of its own",
                )
            }
            Mistake::DuplicateOwner { owner, first, second } => {
                let is_it = |other: &Owner| same(owner, other);
                let spans = both(self.owner_spans(policy, first, is_it), self.owner_spans(policy, second, is_it));
                let (first, second) = spans?;
                let what = "this owner is given twice".to_owned();
                let finding = at(Id::Duplicate, second, what, "an owner is one provider's, once")?;
                Some(finding.also(self.texts.place(first), "the first is here"))
            }
            Mistake::LateVia { filter, via } => {
                let (provider, via) = (self.provider(filter.provider.as_ref()?)?, self.provider(via)?);
                let name = via.name.as_ref()?.get_ref();
                // A rank that is missing has been told.
                let (own_rank, via_rank) = (provider.rank.as_ref()?.get_ref(), via.rank.as_ref()?);
                let entry = provider.filters.get(filter.filter.parse::<usize>().ok()?)?;
                let span = entry.conditions.via.all().find(|via| via.get_ref() == name)?.span();
                let what = format!(
                    "connections of {:?}, which has rank {}, never come to this provider, which has rank {own_rank}",
                    shown(name),
                    via_rank.get_ref()
                );
                let finding = at(Id::LateVia, span, what, "name a provider of a lower rank")?;
                Some(finding.also(self.texts.place(via_rank.span()), "its rank is here"))
            }
            Mistake::NoUdp { filter } => {
                let what = "providers do not get UDP: this filter has no effect".to_owned();
                at(Id::Udp, self.match_span(filter)?, what, "write action = \"block\", or leave the protocol out")
            }
            // Names and prefixes are looked at where they are read; the engine counts handles.
            Mistake::NoName { .. }
            | Mistake::DuplicateName { .. }
            | Mistake::ZeroHandle { .. }
            | Mistake::DuplicateHandle { .. }
            | Mistake::ContextTooLong { .. }
            | Mistake::PrefixTooLong { .. }
            | Mistake::NoPorts { .. }
            | Mistake::NoUids { .. }
            | Mistake::NoGids { .. }
            | Mistake::UnknownVia { .. } => None,
            // Of the policy as a whole, or of what the host has said.
            other => at(Id::TooMany, 0..0, other.to_string(), ""),
        }
    }

    fn provider(&self, number: &str) -> Option<&ProviderEntry> {
        self.providers.get(number.parse::<usize>().ok()?)
    }

    fn listener_spans(&self, provider: &str, listener: SocketAddr) -> impl Iterator<Item = Range<usize>> {
        let normal = |listener: SocketAddr| (listener.ip().to_canonical(), listener.port());
        let listeners = self.provider(provider).and_then(|entry| entry.listeners.as_ref());
        let all = listeners.map_or(&[][..], |listeners| listeners.get_ref());
        all.iter().filter(move |own| normal(*own.get_ref()) == normal(listener)).map(Spanned::span)
    }

    fn owner_spans(
        &self,
        policy: &Policy,
        provider: &str,
        is_it: impl Fn(&Owner) -> bool,
    ) -> impl Iterator<Item = Range<usize>> {
        let at = provider.parse::<usize>().ok();
        let entries = self.provider(provider).and_then(|entry| entry.owners.as_ref());
        let entries = entries.map_or(&[][..], |owners| owners.get_ref());
        let owners = at.and_then(|at| policy.providers.get(at)).map_or(&[][..], |provider| &provider.owners);
        entries.iter().zip(owners).filter(move |(_, owner)| is_it(owner)).map(|(entry, _)| entry.span())
    }

    fn match_span(&self, filter: &FilterName) -> Option<Range<usize>> {
        let at = filter.filter.parse::<usize>().ok()?;
        match &filter.provider {
            None => self.filters.get(at)?.match_span.clone(),
            Some(provider) => self.provider(provider)?.filters.get(at)?.match_span.clone(),
        }
    }

    /// In the order of the file.
    fn filter_spans(&self) -> impl Iterator<Item = Range<usize>> {
        let host = self.filters.iter().map(|entry| entry.name_span());
        let mut spans: Vec<_> = host.chain(self.provider_filters().map(|(_, _, entry)| entry.name_span())).collect();
        spans.sort_by_key(|span| span.start);
        spans.into_iter()
    }
}

/// The first of each; of one list, its first two.
fn both(
    mut first: impl Iterator<Item = Range<usize>>,
    second: impl Iterator<Item = Range<usize>>,
) -> Option<(Range<usize>, Range<usize>)> {
    let first = first.next()?;
    let second = second.into_iter().find(|span| *span != first)?;
    Some(if second.start < first.start { (second, first) } else { (first, second) })
}

/// A cgroup's level follows from its id.
fn same(owner: &Owner, other: &Owner) -> bool {
    match (owner, other) {
        (Owner::Cgroup { id, .. }, Owner::Cgroup { id: other, .. }) => id == other,
        (owner, other) => owner == other,
    }
}
