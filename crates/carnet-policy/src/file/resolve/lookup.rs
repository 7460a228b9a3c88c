//! Asks a host, each thing once, and keeps what is to be said of the answers.

use std::collections::HashMap;
use std::ops::{Range, RangeInclusive};

use carnet_abi::LINE;
use toml::Spanned;

use crate::Executable;
use crate::file::Host;
use crate::file::conditions::Id32;
use crate::file::finding::{Finding, Id};
use crate::file::host::{Answer, CgroupAt, ExecutableAt};
use crate::file::nearest::nearest;
use crate::file::resolve::Found;
use crate::file::source::{Source, shown};

/// A program that is there, by its path, and where it is named first.
pub type Program = Spanned<(String, ExecutableAt)>;

pub struct Lookup<'f> {
    host: &'f dyn Host,
    source: &'f Source,
    mistakes: Vec<Finding>,
    notes: Vec<Finding>,
    users: HashMap<String, Answer<u32>>,
    groups: HashMap<String, Answer<u32>>,
    executables: HashMap<String, Answer<ExecutableAt>>,
    cgroups: HashMap<String, Answer<CgroupAt>>,
    netns: HashMap<String, Answer<u64>>,
    seen_executables: Vec<Program>,
    /// Reasons not to look something up, where first, and how often.
    unasked: Vec<(String, Range<usize>, usize)>,
}

impl<'f> Lookup<'f> {
    pub fn new(host: &'f dyn Host, source: &'f Source) -> Self {
        Self {
            host,
            source,
            mistakes: Vec::new(),
            notes: Vec::new(),
            users: HashMap::new(),
            groups: HashMap::new(),
            executables: HashMap::new(),
            cgroups: HashMap::new(),
            netns: HashMap::new(),
            seen_executables: Vec::new(),
            unasked: Vec::new(),
        }
    }

    /// Mistakes, notes in the order of the file, and programs.
    pub fn finish(mut self) -> (Vec<Finding>, Vec<Finding>, Vec<Program>) {
        for (why, span, times) in std::mem::take(&mut self.unasked) {
            let names = if times == 1 { "this name was".into() } else { format!("{times} names were") };
            let what = format!("{names} not looked up: {why}. Conditions on such hold for nothing");
            self.note(Id::NotLookedUp, span, what, "");
        }
        self.notes.sort_by_key(|note| note.place.span.start);
        (self.mistakes, self.notes, self.seen_executables)
    }

    pub fn note(&mut self, id: Id, span: Range<usize>, what: impl Into<String>, action: impl Into<String>) {
        self.notes.push(Finding::new(id, self.source.place(span), what, action));
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

    pub fn executable(&mut self, path: &str, span: Range<usize>) -> Option<Executable> {
        let is_new = !self.executables.contains_key(path);
        let host = self.host;
        let answer = self.executables.entry(path.to_owned()).or_insert_with(|| host.executable(path)).clone();
        match answer {
            Answer::Is(at) => {
                let executable = at.executable;
                if is_new {
                    self.seen_executables.push(Spanned::new(span, (path.to_owned(), at)));
                }
                Some(executable)
            }
            Answer::No => {
                if is_new {
                    let what = format!(
                        "there is no program {:?}: the condition holds for nothing until there is",
                        shown(path)
                    );
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

    pub fn cgroup(&mut self, path: &str, span: Range<usize>) -> Found<CgroupAt> {
        let is_new = !self.cgroups.contains_key(path);
        let host = self.host;
        let answer = self.cgroups.entry(path.to_owned()).or_insert_with(|| host.cgroup(path)).clone();
        match answer {
            Answer::Is(at) if at.level as usize > LINE => {
                let what =
                    format!("the cgroup {:?} is {} levels deep, at most {LINE} are looked at", shown(path), at.level);
                let action = "name one above it";
                self.mistakes.push(Finding::new(Id::TooDeep, self.source.place(span), what, action));
                Found::Unknown
            }
            Answer::Is(at) => Found::Is(at),
            Answer::No => {
                if is_new {
                    let what = format!("there is no cgroup {:?}: nothing is in it until there is", shown(path));
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

    pub fn netns(&mut self, name: &str, span: Range<usize>) -> Option<u64> {
        let is_new = !self.netns.contains_key(name);
        let host = self.host;
        let answer = self.netns.entry(name.to_owned()).or_insert_with(|| host.netns(name)).clone();
        match answer {
            Answer::Is(cookie) => Some(cookie),
            Answer::No => {
                if is_new {
                    let what = format!(
                        "there is no network namespace {:?}: the condition holds for nothing until there is",
                        shown(name)
                    );
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
                self.mistakes.push(Finding::new(id, self.source.place(span), what, action));
                None
            }
            Answer::Unasked(why) => {
                self.unasked(why, span);
                None
            }
        }
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
