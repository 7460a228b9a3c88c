//! What can be used, and perhaps is not what was meant.

mod chain;
mod filters;
mod listeners;
mod owners;
mod programs;
mod ranges;
mod region;

use std::ops::Range;

use self::region::Regions;
use crate::file::finding::{Finding, Id};
use crate::file::resolve::Unexcepted;
use crate::file::source::shown;
use crate::file::{Host, Place, PolicyFile, Resolved};
use crate::matching::Effect;
use crate::{FilterRef, Policy};

impl PolicyFile {
    /// What is to be said of a policy that can be used, in the order of the file. `host` knows what its users are.
    ///
    /// - More services than a record has room for could have one connection. An upper bound: conditions are compared
    ///   as they are, not what heavier filters leave of them, and services are taken to dial where the application
    ///   wanted to go.
    /// - Owners that are too wide, or within each other.
    /// - Programs that others than root can put something else in the place of; scripts.
    /// - Destinations of a family that none of a provider's listeners is of.
    /// - Filters that let through what they should except, since that is not there.
    /// - Filters that can hold for nothing, that come behind one filter which decides all they could, providers without
    ///   a filter that redirects to them, sets without use.
    pub fn warnings(&self, resolved: &Resolved, host: &dyn Host) -> Vec<Finding> {
        let mut warnings = Warnings { file: self, findings: Vec::new() };
        let regions = Regions::of(&resolved.policy);
        owners::look(&mut warnings, resolved, host);
        programs::look(&mut warnings, resolved);
        let idle = filters::look(&mut warnings, resolved, &regions);
        listeners::look(&mut warnings, resolved, &regions, &idle);
        chain::look(&mut warnings, resolved, &regions, &idle);
        for unexcepted in &resolved.unexcepted {
            warnings.unexcepted(&resolved.policy, unexcepted);
        }
        for set in self.sets.unused() {
            let what = format!("nothing uses the set {:?}", shown(set.get_ref()));
            warnings.add(Id::UnusedSet, set.span(), what, "remove it, or use it: \"@NAME\" in remote or remote-port");
        }
        warnings.findings.sort_by_key(|finding| finding.place.span.start);
        warnings.findings
    }

    /// Where a filter of the file's policy is named.
    pub fn filter_place(&self, filter: FilterRef) -> Place {
        self.texts.place(self.filter_span(filter))
    }

    /// The same among all texts.
    fn filter_span(&self, filter: FilterRef) -> Range<usize> {
        let span = match filter {
            FilterRef::Host(at) => self.filters.get(at).map(|entry| entry.name_span()),
            FilterRef::Provider { provider, filter } => {
                self.providers.get(provider).and_then(|entry| entry.filters.get(filter)).map(|entry| entry.name_span())
            }
        };
        span.unwrap_or(0..0)
    }

    /// The name of a filter, for a message.
    fn shown_filter(&self, filter: FilterRef) -> String {
        let name = match filter {
            FilterRef::Host(at) => self.filters.get(at).and_then(|entry| entry.name.as_ref()),
            FilterRef::Provider { provider, filter } => (self.providers.get(provider))
                .and_then(|entry| entry.filters.get(filter))
                .and_then(|entry| entry.name.as_ref()),
        };
        shown(name.map_or("", |name| name.get_ref()))
    }
}

struct Warnings<'f> {
    file: &'f PolicyFile,
    findings: Vec<Finding>,
}

impl Warnings<'_> {
    /// Of a filter that lets through. What one blocks or redirects too much is seen.
    fn unexcepted(&mut self, policy: &Policy, Unexcepted { filter, key, span }: &Unexcepted) {
        let (effect, word) = match *filter {
            FilterRef::Host(at) => (policy.filters.get(at).map(|filter| filter.action.into()), "permits"),
            FilterRef::Provider { provider, filter } => {
                let provider = policy.providers.get(provider);
                (provider.and_then(|all| all.filters.get(filter)).map(|filter| (&filter.action).into()), "skips")
            }
        };
        if effect.is_some_and(Effect::lets_through) {
            let name = self.file.shown_filter(*filter);
            let what = format!("the filter {name:?} {word} what {key:?} should except, too: nothing of it is there");
            let action = "see that it is there, or look at its name";
            self.add(Id::NothingExcepted, span.clone(), what, action);
        }
    }

    fn add(&mut self, id: Id, span: Range<usize>, what: impl Into<String>, action: impl Into<String>) {
        self.findings.push(Finding::new(id, self.file.texts.place(span), what, action));
    }

    fn add_with(&mut self, id: Id, span: Range<usize>, what: String, action: &str, also: (Range<usize>, &str)) {
        let finding = Finding::new(id, self.file.texts.place(span), what, action);
        self.findings.push(finding.also(self.file.texts.place(also.0), also.1));
    }
}
