//! What the kernel would do with a destination, from its rules and routes: which prefixes have no way, and with which
//! errno connect() fails there. Nothing here asks the kernel.
//!
//! Where it depends on more than the destination (marks, users, the type of service), what might be reached counts as
//! reachable: a connection is never refused that the kernel would have let through.

use std::collections::HashMap;

use super::prefix::Prefix;

/// Rules and routes of one family.
#[derive(Clone, Debug, Default)]
pub struct Family {
    /// In the order in which the kernel asks them.
    pub rules: Vec<Rule>,
    /// Of all tables, in any order.
    pub routes: Vec<Route>,
}

/// One step of a lookup.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Rule {
    /// The kernel's order; [`Step::Jump`] refers to it.
    pub priority: u32,
    /// The destinations it holds for; `None`: all.
    pub destination: Option<Prefix>,
    /// Whether it holds for some sockets only.
    pub is_conditional: bool,
    /// What it does.
    pub step: Step,
}

/// What a rule does.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Step {
    /// Looks into a table. A way found there does not count if its prefix is not longer than `longer_than`, in the
    /// v4-mapped form.
    Table {
        /// Its number.
        table: u32,
        /// `suppress_prefixlength`.
        longer_than: Option<u8>,
    },
    /// Goes on at the first rule with this priority, which comes later.
    Jump(u32),
    /// connect() fails.
    Fail(u32),
    /// Nothing.
    Pass,
}

/// One route.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Route {
    /// The table it is in.
    pub table: u32,
    /// The destinations it is for.
    pub prefix: Prefix,
    /// Of several for one prefix, the lowest is taken.
    pub metric: u32,
    /// Whether it is for some sockets only.
    pub is_conditional: bool,
    /// What it says.
    pub way: Way,
}

/// What a route says of its destinations.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Way {
    /// They can be reached; addresses of this host among them.
    Open,
    /// Its interfaces are down: it is as if it were not there.
    Dead,
    /// connect() fails with this errno.
    Closed(u32),
    /// This table has no answer; the next rule is asked.
    Throw,
}

/// A prefix and the errno of those of its addresses that no longer prefix says anything of; 0: they can be reached.
pub type Entry = (Prefix, u32);

impl Family {
    /// What holds for each prefix that a route or a rule is for, and for `root`, which covers them all. Sorted.
    pub fn entries(mut self, root: Prefix, no_route: u32) -> Vec<Entry> {
        let tables = self.tables();
        self.routes.retain(|route| tables.contains_key(&route.table) && root.covers(route.prefix));
        let marks = self.rules.iter().filter_map(|rule| rule.destination).chain([root]);
        self.routes.extend(marks.filter(|prefix| root.covers(*prefix)).map(Route::mark));
        self.routes.sort_by_key(|route| (route.prefix, route.table, route.metric));

        let walk = Walk { rules: &self.rules, tables: &tables, no_route };
        let nothing = vec![Found::Nothing; tables.len()];
        let mut entries = Vec::new();
        // The prefixes that cover the one at hand, with what is found in each table.
        let mut covering: Vec<(Prefix, Vec<Found>)> = Vec::new();
        for routes in self.routes.chunk_by(|a, b| a.prefix == b.prefix) {
            let prefix = routes[0].prefix;
            while covering.last().is_some_and(|(cover, _)| !cover.covers(prefix)) {
                covering.pop();
            }
            let mut found = covering.last().map_or_else(|| nothing.clone(), |(_, found)| found.clone());
            for routes in routes.chunk_by(|a, b| a.table == b.table) {
                if let Some(answer) = answer(routes) {
                    found[tables[&routes[0].table]] = answer;
                }
            }
            entries.push((prefix, walk.errno(prefix, &found)));
            covering.push((prefix, found));
        }
        entries
    }

    /// The tables that rules name, with a place for each.
    fn tables(&self) -> HashMap<u32, usize> {
        let mut tables = HashMap::new();
        for rule in &self.rules {
            if let Step::Table { table, .. } = rule.step {
                let place = tables.len();
                tables.entry(table).or_insert(place);
            }
        }
        tables
    }
}

impl Route {
    /// A route that says nothing, so that its prefix is looked at by itself.
    fn mark(prefix: Prefix) -> Self {
        Self { table: 0, prefix, metric: 0, is_conditional: false, way: Way::Dead }
    }
}

/// What a table has for a destination.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Found {
    Nothing,
    Open(u8),
    Closed(u32),
    Throw,
}

/// The answer of one table's routes for one prefix, by rising metric. None: those for shorter prefixes are asked.
fn answer(routes: &[Route]) -> Option<Found> {
    let open = Found::Open(routes[0].prefix.length());
    // Such a route comes before the others, whatever its metric; and a thrown lookup may end well elsewhere.
    if routes.iter().any(|route| route.is_conditional && matches!(route.way, Way::Open | Way::Throw)) {
        return Some(open);
    }
    let mut rest = routes.iter().filter(|route| !route.is_conditional && route.way != Way::Dead);
    let first = rest.next()?;
    if first.way == Way::Open || rest.any(|route| route.metric == first.metric && route.way == Way::Open) {
        return Some(open);
    }
    match first.way {
        Way::Closed(errno) => Some(Found::Closed(errno)),
        Way::Throw => Some(Found::Throw),
        Way::Open | Way::Dead => None,
    }
}

/// The way through the rules.
struct Walk<'a> {
    rules: &'a [Rule],
    tables: &'a HashMap<u32, usize>,
    no_route: u32,
}

impl Walk<'_> {
    /// With what connect() fails in this prefix, where this is found in the tables; 0: it does not.
    fn errno(&self, prefix: Prefix, found: &[Found]) -> u32 {
        let mut next = 0;
        while let Some(rule) = self.rules.get(next) {
            next += 1;
            if rule.destination.is_some_and(|destination| !destination.covers(prefix)) {
                continue;
            }
            let closed = match rule.step {
                Step::Pass => continue,
                Step::Fail(errno) => errno,
                // Two ways from here. It is enough that there may be an end to one of them.
                Step::Jump(_) if rule.is_conditional => {
                    if found.iter().any(|found| matches!(found, Found::Open(_))) {
                        return 0;
                    }
                    continue;
                }
                Step::Jump(priority) => {
                    let later = self.rules[next..].iter().position(|rule| rule.priority == priority);
                    next += later.unwrap_or(0);
                    continue;
                }
                Step::Table { table, longer_than } => match found[self.tables[&table]] {
                    Found::Open(length) if longer_than.is_none_or(|limit| length > limit) => return 0,
                    Found::Closed(errno) => errno,
                    Found::Open(_) | Found::Nothing | Found::Throw => continue,
                },
            };
            if !rule.is_conditional {
                return closed;
            }
        }
        self.no_route
    }
}

#[cfg(test)]
mod tests;
