//! Asks a host, each thing once, and keeps what is to be said of the answers.

use std::collections::{HashMap, HashSet};
use std::ops::{Range, RangeInclusive};

use toml::Spanned;

use crate::Executable;
use crate::file::conditions::Id32;
use crate::file::finding::{Finding, Id};
use crate::file::host::{Answer, CgroupAt, ExecutableAt};
use crate::file::nearest::nearest;
use crate::file::resolve::Found;
use crate::file::source::{Texts, shown};
use crate::file::{Host, Watched};

/// A program that is there, by its path, and where it is named first.
pub type Program = Spanned<(String, ExecutableAt)>;

/// Which of the two forms of a condition asks.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Sense {
    Only,
    /// The `not-` form.
    Except,
}

impl Sense {
    /// What a condition on what is not there comes to.
    fn of_nothing(self) -> &'static str {
        match self {
            Self::Only => "the condition holds for nothing",
            Self::Except => "nothing is excepted",
        }
    }
}

/// What has come of all.
pub struct Said {
    pub mistakes: Vec<Finding>,
    pub notes: Vec<Finding>,
    pub unasked: Vec<Finding>,
    pub watched: Watched,
    pub programs: Vec<Program>,
}

pub struct Lookup<'f> {
    host: &'f dyn Host,
    texts: &'f Texts,
    /// Programs that were at paths.
    kept: &'f [(String, Executable)],
    mistakes: Vec<Finding>,
    notes: Vec<Finding>,
    users: HashMap<String, Answer<u32>>,
    groups: HashMap<String, Answer<u32>>,
    executables: HashMap<String, Answer<ExecutableAt>>,
    cgroups: HashMap<String, Answer<CgroupAt>>,
    netns: HashMap<String, Answer<u64>>,
    programs: Vec<Program>,
    /// What has been told to be missing.
    told: HashSet<(Id, String, Sense)>,
    /// Users and groups of which it is not known whether they are there.
    unasked_ids: Vec<Finding>,
    /// Reasons not to look something up, where first, and how often.
    unasked: Vec<(String, Range<usize>, usize)>,
}

impl<'f> Lookup<'f> {
    pub fn new(host: &'f dyn Host, texts: &'f Texts, kept: &'f [(String, Executable)]) -> Self {
        Self {
            host,
            texts,
            kept,
            mistakes: Vec::new(),
            notes: Vec::new(),
            users: HashMap::new(),
            groups: HashMap::new(),
            executables: HashMap::new(),
            cgroups: HashMap::new(),
            netns: HashMap::new(),
            programs: Vec::new(),
            told: HashSet::new(),
            unasked_ids: Vec::new(),
            unasked: Vec::new(),
        }
    }

    /// Whether no such program, cgroup or namespace is there, where it has been looked for.
    pub fn lacks(&self, kind: Id, name: &str) -> bool {
        match kind {
            Id::NoExecutable => self.executables.get(name) == Some(&Answer::No),
            Id::NoCgroup => self.cgroups.get(name) == Some(&Answer::No),
            _ => self.netns.get(name) == Some(&Answer::No),
        }
    }

    /// Notes are in the order of the file.
    pub fn finish(mut self) -> Said {
        for (why, span, times) in std::mem::take(&mut self.unasked) {
            let names = if times == 1 { "this name was".into() } else { format!("{times} names were") };
            let what = format!("{names} not looked up: {why}. They are taken not to be there");
            self.note(Id::NotLookedUp, span, what, "");
        }
        self.notes.sort_by_key(|note| note.place.span.start);
        let Self { mistakes, notes, programs, unasked_ids: unasked, .. } = self;
        let watched = Watched {
            executables: answers(self.executables, |at| at.executable),
            cgroups: answers(self.cgroups, |at| at.id),
            netns: answers(self.netns, |cookie| cookie),
        };
        Said { mistakes, notes, unasked, watched, programs }
    }

    pub fn note(&mut self, id: Id, span: Range<usize>, what: impl Into<String>, action: impl Into<String>) {
        self.notes.push(Finding::new(id, self.texts.place(span), what, action));
    }

    pub fn users(&mut self, user: &Id32, span: Range<usize>) -> Option<RangeInclusive<u32>> {
        let name = match user {
            Id32::Range(range) => return Some(range.clone()),
            Id32::Name(name) => name,
        };
        let host = self.host;
        let answer = self.users.entry(name.clone()).or_insert_with(|| host.uid(name)).clone();
        self.id(answer, Id::UnknownUser, "user", name, span, || host.users())
    }

    pub fn groups(&mut self, group: &Id32, span: Range<usize>) -> Option<RangeInclusive<u32>> {
        let name = match group {
            Id32::Range(range) => return Some(range.clone()),
            Id32::Name(name) => name,
        };
        let host = self.host;
        let answer = self.groups.entry(name.clone()).or_insert_with(|| host.gid(name)).clone();
        self.id(answer, Id::UnknownGroup, "group", name, span, || host.groups())
    }

    /// What is at a path, and what was there and is kept.
    pub fn executable(&mut self, path: &str, span: Range<usize>, sense: Sense) -> Vec<Executable> {
        let now = self.executable_now(path, span, sense);
        let kept = self.kept.iter().filter(|(at, old)| at == path && Some(*old) != now);
        now.into_iter().chain(kept.map(|(_, old)| *old)).collect()
    }

    fn executable_now(&mut self, path: &str, span: Range<usize>, sense: Sense) -> Option<Executable> {
        let is_new = !self.executables.contains_key(path);
        let host = self.host;
        let answer = self.executables.entry(path.to_owned()).or_insert_with(|| host.executable(path)).clone();
        match answer {
            Answer::Is(at) => {
                let executable = at.executable;
                if is_new {
                    self.programs.push(Spanned::new(span, (path.to_owned(), at)));
                }
                Some(executable)
            }
            Answer::No => {
                if self.is_news(Id::NoExecutable, path, sense) {
                    let nothing = sense.of_nothing();
                    let what = format!("there is no program {:?}: {nothing} until there is", shown(path));
                    self.note(Id::NoExecutable, span, what, "");
                }
                None
            }
            Answer::Unasked(why) => {
                self.unasked(why, span);
                None
            }
        }
    }

    pub fn cgroup(&mut self, path: &str, span: Range<usize>, sense: Sense) -> Found<CgroupAt> {
        let host = self.host;
        let answer = self.cgroups.entry(path.to_owned()).or_insert_with(|| host.cgroup(path)).clone();
        match answer {
            Answer::Is(at) => Found::Is(at),
            Answer::No => {
                if self.is_news(Id::NoCgroup, path, sense) {
                    let nothing = match sense {
                        Sense::Only => "nothing is in it",
                        Sense::Except => "nothing is excepted",
                    };
                    let what = format!("there is no cgroup {:?}: {nothing} until there is", shown(path));
                    self.note(Id::NoCgroup, span, what, "");
                }
                Found::No
            }
            Answer::Unasked(why) => {
                self.unasked(why, span);
                Found::Unknown
            }
        }
    }

    pub fn netns(&mut self, name: &str, span: Range<usize>, sense: Sense) -> Option<u64> {
        let host = self.host;
        let answer = self.netns.entry(name.to_owned()).or_insert_with(|| host.netns(name)).clone();
        match answer {
            Answer::Is(cookie) => Some(cookie),
            Answer::No => {
                if self.is_news(Id::NoNetns, name, sense) {
                    let nothing = sense.of_nothing();
                    let what = format!("there is no network namespace {:?}: {nothing} until there is", shown(name));
                    self.note(Id::NoNetns, span, what, "");
                }
                None
            }
            Answer::Unasked(why) => {
                self.unasked(why, span);
                None
            }
        }
    }

    fn id(
        &mut self,
        answer: Answer<u32>,
        id: Id,
        what: &str,
        name: &str,
        span: Range<usize>,
        all: impl Fn() -> Vec<String>,
    ) -> Option<RangeInclusive<u32>> {
        match answer {
            Answer::Is(number) => Some(number..=number),
            Answer::No => {
                let names = all();
                let action = match nearest(name, names.iter().map(|name| &**name)) {
                    Some(near) => format!("did you mean {near:?}?"),
                    None => format!("add the {what}, or write a number"),
                };
                let what = format!("this host has no {what} {:?}", shown(name));
                self.mistakes.push(Finding::new(id, self.texts.place(span), what, action));
                None
            }
            Answer::Unasked(why) => {
                let finding = format!("the {what} {:?} was not looked up: {why}", shown(name));
                let action = "read the policy again when users and groups can be asked for";
                self.unasked_ids.push(Finding::new(Id::NotLookedUp, self.texts.place(span.clone()), finding, action));
                self.unasked(why, span);
                None
            }
        }
    }

    /// Whether this has not been told yet.
    fn is_news(&mut self, id: Id, name: &str, sense: Sense) -> bool {
        self.told.insert((id, name.to_owned(), sense))
    }

    fn unasked(&mut self, why: String, span: Range<usize>) {
        match self.unasked.iter_mut().find(|(known, _, _)| *known == why) {
            Some((_, first, times)) => {
                *times += 1;
                if span.start < first.start {
                    *first = span;
                }
            }
            None => self.unasked.push((why, span, 1)),
        }
    }
}

/// By name, in the order of the names.
fn answers<T, U>(answers: HashMap<String, Answer<T>>, what: impl Fn(T) -> U) -> Vec<(String, Option<U>)> {
    let found = |answer| match answer {
        Answer::Is(found) => Some(what(found)),
        Answer::No | Answer::Unasked(_) => None,
    };
    let mut all: Vec<_> = answers.into_iter().map(|(name, answer)| (name, found(answer))).collect();
    all.sort_by(|(name, _), (other, _)| name.cmp(other));
    all
}
