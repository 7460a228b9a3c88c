//! What can be used, and perhaps is not what was meant.

mod chain;
mod filters;
mod owners;
mod programs;
mod ranges;
mod region;

use std::ops::Range;

use self::region::Regions;
use crate::FilterRef;
use crate::file::finding::{Finding, Id};
use crate::file::source::shown;
use crate::file::{Host, PolicyFile, Resolved};

impl PolicyFile {
    /// What is to be said of a policy that can be used, in the order of the file. `host` knows what its users are.
    ///
    /// - More services than a record has room for could have one connection. An upper bound: conditions are compared
    ///   as they are, not what heavier filters leave of them, and services are taken to dial where the application
    ///   wanted to go.
    /// - Owners that are too wide, or within each other.
    /// - Programs that others than root can put something else in the place of; scripts.
    /// - Filters that can hold for nothing, that come behind one filter which decides all they could, providers without
    ///   a filter that redirects to them, sets without use.
    pub fn warnings(&self, resolved: &Resolved, host: &dyn Host) -> Vec<Finding> {
        let mut warnings = Warnings { file: self, findings: Vec::new() };
        let regions = Regions::of(&resolved.policy);
        owners::look(&mut warnings, resolved, host);
        programs::look(&mut warnings, resolved);
        let idle = filters::look(&mut warnings, resolved, &regions);
        chain::look(&mut warnings, resolved, &regions, &idle);
        for set in &self.unused_sets {
            let what = format!("nothing uses the set {:?}", shown(set.get_ref()));
            warnings.add(Id::UnusedSet, set.span(), what, "remove it, or use it: \"@NAME\" in remote or remote-port");
        }
        warnings.findings.sort_by_key(|finding| finding.place.span.start);
        warnings.findings
    }

    /// Where a filter is named.
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
    fn add(&mut self, id: Id, span: Range<usize>, what: impl Into<String>, action: impl Into<String>) {
        self.findings.push(Finding::new(id, self.file.source.place(span), what, action));
    }

    fn add_with(&mut self, id: Id, span: Range<usize>, what: String, action: &str, also: (Range<usize>, &str)) {
        let finding = Finding::new(id, self.file.source.place(span), what, action);
        self.findings.push(finding.also(self.file.source.place(also.0), also.1));
    }
}
