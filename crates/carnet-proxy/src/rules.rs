//! Rules: what happens to a flow, by its name, its origin, its destination and what the client speaks.
//!
//! ```text
//! text ──► Rules::parse ──► Rules ──► decide_without_name ──► Decision, or not yet
//!   files, users by a Host      └───► decide(&Facts) ───────► Decision
//! ```
//!
//! The first rule that matches wins. Nothing here touches the system: files and users are asked of a [`Host`]. The
//! reference of the language is `docs/rules.md`, and why it is as it is `docs/adr/0026-the-first-rule-that-matches-wins.md`.
//!
//! # What a decision costs
//!
//! One lookup for each label of the name, however many names and rules there are. Then the other conditions of the
//! rules that have this name, and of those without a condition on the name, each up to the first that holds: this part
//! is linear. Addresses, ports and uids of a rule cost the logarithm of how many it has, cgroups how many.

mod conditions;
mod decision;
mod entry;
mod facts;
mod index;
mod mistake;
mod names;
mod nearest;
mod pattern;
mod ranges;
mod rate;
mod read;
mod source;
mod syntax;
mod upstream;

use std::{
    collections::{HashMap, HashSet},
    io,
    net::SocketAddr,
    path::Path,
    sync::Arc,
};

pub use self::{
    decision::{Action, Block, Decision, Outcome, Refusal, Rule, Unread},
    facts::{Facts, Origin, Protocol},
    mistake::{Kind, Mistake},
    rate::{NoRate, Rate, TokenBucket},
    source::Place,
    upstream::Upstream,
};

use self::{
    entry::Context,
    index::{Lists, NameIndex},
    names::NamedLists,
    read::{Reader, one_or_more},
    source::Source,
    syntax::Syntax,
    upstream::Upstreams,
};

/// The rules of one file. They do not change: who reads a file anew has new ones, whose rates begin anew.
#[derive(Debug, Default)]
pub struct Rules {
    rules: Vec<Rule>,
    default: Outcome,
    upstreams: Vec<Arc<Upstream>>,
    index: NameIndex,
    /// Rules without a condition on the name, in their order.
    nameless: Vec<u32>,
    /// Rules without a condition on what the client sends, in their order.
    ready: Vec<u32>,
    /// Of the others, the first with each set of conditions on the rest, in their order.
    waiting: Vec<u32>,
}

/// What a rules file names, and only a host knows.
pub trait Host {
    /// The text of a file.
    fn read(&self, path: &Path) -> io::Result<String>;

    /// The uid of a user; `None`: there is no such user.
    fn uid(&self, user: &str) -> io::Result<Option<u32>>;
}

impl Rules {
    /// Reads a text. `path` is what mistakes call it, and files that it names are relative to its folder.
    ///
    /// Fails with every mistake there is, in the order of the file, at least one. Where a bracket or a quote has no end,
    /// nothing is said of what is behind it.
    pub fn parse(text: &str, path: &Path, host: &dyn Host) -> Result<Self, Vec<Mistake>> {
        let name = path.display().to_string();
        let source = Source::new(&name, text);
        let syntax = Syntax::of(&source);
        let (rules, mistakes) = Self::read(&source, &syntax.readable, path.parent().unwrap_or(Path::new("")), host);
        let mut mistakes = syntax.with_what_does_not_follow(mistakes, &name);
        mistakes.sort_by_key(|mistake| (mistake.place.file != name, mistake.place.span.start));
        if mistakes.is_empty() { Ok(rules) } else { Err(mistakes) }
    }

    /// What happens to a flow of which all is known that will be.
    pub fn decide(&self, facts: &Facts) -> Decision<'_> {
        let holds = |rule: u32| self.rules[rule as usize].conditions.hold(facts);
        let end = self.rules.len() as u32;
        let by_name = facts.name.map_or(end, |name| self.index.first(name, end, holds));
        let before = self.nameless.iter().copied().take_while(|&rule| rule < by_name);
        self.decision(before.into_iter().find(|&rule| holds(rule)).unwrap_or(by_name))
    }

    /// What happens to a flow, as far as that can be said before the client has sent anything. `None`: not yet, since
    /// what it sends may make another rule win. Where this decides, [`Rules::decide`] decides the same.
    pub fn decide_without_name(&self, destination: SocketAddr, origin: &Origin) -> Option<Decision<'_>> {
        let holds = |rule: u32| self.rules[rule as usize].conditions.early.hold(destination, origin);
        let end = self.rules.len() as u32;
        let winner = self.ready.iter().copied().find(|&rule| holds(rule)).unwrap_or(end);
        let mut before = self.waiting.iter().copied().take_while(|&rule| rule < winner);
        (!before.any(holds)).then(|| self.decision(winner))
    }

    /// Whether there is any flow for which it counts what the client sends.
    pub fn needs_name(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Whether a rule asks for the program's path, which need not be looked up otherwise.
    pub fn ask_for_exe(&self) -> bool {
        self.rules.iter().any(|rule| rule.conditions.early.exes.is_some())
    }

    /// The same for its cgroup.
    pub fn ask_for_cgroup(&self) -> bool {
        self.rules.iter().any(|rule| rule.conditions.early.cgroups.is_some())
    }

    /// Whether any flow is to be opened.
    pub fn open(&self) -> bool {
        let opens = |outcome: &Outcome| outcome.action == Action::Open;
        opens(&self.default) || self.rules.iter().any(|rule| opens(&rule.outcome))
    }

    /// All rules, in their order.
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// What happens to flows that no rule matches.
    pub fn default_outcome(&self) -> &Outcome {
        &self.default
    }

    /// The proxies that the file names, whether rules use them or not.
    pub fn upstreams(&self) -> &[Arc<Upstream>] {
        &self.upstreams
    }

    /// Of the position of a rule; of one behind the last, the default.
    fn decision(&self, rule: u32) -> Decision<'_> {
        let rule = self.rules.get(rule as usize);
        Decision { rule, outcome: rule.map_or(&self.default, |rule| &rule.outcome) }
    }

    /// What could be read, and what is wrong with the rest.
    fn read(source: &Source, readable: &str, folder: &Path, host: &dyn Host) -> (Self, Vec<Mistake>) {
        let (table, _) = syntax::parse(readable);
        let mut reader = Reader { source, host, mistakes: Vec::new() };
        let keys = reader.keys_of("a rules file", table.get_ref(), 0..0, KEYS);
        let mut lists = Lists::default();
        let names = keys.value("names").map(|value| NamedLists::read(&mut reader, &mut lists, value, folder));
        let upstreams = keys.value("upstream").map(|value| Upstreams::read(&mut reader, value, folder));
        let upstreams = upstreams.unwrap_or_default();
        let default = keys.value("default").and_then(|value| entry::default(&mut reader, &upstreams, value));
        let mut context = Context { lists, names: names.unwrap_or_default(), upstreams, ids: HashMap::new() };
        if let Some(value) = keys.value("rule").filter(|value| value.get_ref().is_table()) {
            let action = "begin each with a header that has two brackets: [[rule]]";
            reader.mistake(Kind::WrongType, value.span(), "\"rule\" is a list of tables, not one table", action);
        }
        let values = keys.value("rule").map(one_or_more).unwrap_or_default().into_iter().enumerate();
        let rules = values.filter_map(|(index, value)| Rule::read(&mut reader, &mut context, index, value)).collect();
        let mistakes = reader.mistakes;
        if !mistakes.is_empty() {
            return (Self::default(), mistakes);
        }
        (Self::of(rules, default.unwrap_or_default(), context), mistakes)
    }

    fn of(rules: Vec<Rule>, default: Outcome, Context { lists, upstreams, .. }: Context) -> Self {
        let of_which = |holds: &dyn Fn(&Rule) -> bool| -> Vec<u32> {
            rules.iter().filter(|rule| holds(rule)).map(|rule| rule.index as u32).collect()
        };
        let nameless = of_which(&|rule| rule.conditions.name_lists.is_none() && !rule.conditions.never_hold());
        let ready = of_which(&|rule| !rule.conditions.need_bytes() && !rule.conditions.never_hold());
        let mut seen = HashSet::new();
        let mut waiting = of_which(&|rule| rule.conditions.need_bytes() && !rule.conditions.never_hold());
        waiting.retain(|&rule| seen.insert(&rules[rule as usize].conditions.early));
        let upstreams = upstreams.all().cloned().collect();
        Self { index: lists.index(), default, upstreams, nameless, ready, waiting, rules }
    }
}

const KEYS: &[&str] = &["rule", "default", "names", "upstream"];
