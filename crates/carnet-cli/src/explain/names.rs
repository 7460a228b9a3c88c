//! A host on which everything exists: what is not there has a number that stands for its name, so that names which are
//! the same are the same.

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};

use carnet_policy::file::{Account, Answer, CgroupAt, ExecutableAt, Host};
use carnet_policy::{Executable, Line};

/// Asks `real` first.
pub struct Names<'h> {
    real: &'h dyn Host,
    /// By kind and name.
    numbers: RefCell<HashMap<(Kind, String), u32>>,
    /// Users and groups that `real` does not have.
    missing: RefCell<BTreeSet<(Kind, String)>>,
}

#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Kind {
    User,
    Group,
    Executable,
    Cgroup,
    Netns,
}

impl<'h> Names<'h> {
    pub fn on(real: &'h dyn Host) -> Self {
        Self { real, numbers: RefCell::default(), missing: RefCell::default() }
    }

    /// Users and groups that have been asked for and are not on the real host.
    pub fn missing(&self) -> BTreeSet<(Kind, String)> {
        self.missing.borrow().clone()
    }

    /// Whether the number of a user or group is one that stands for a name.
    pub fn is_made_up(&self, kind: Kind, number: u32) -> bool {
        self.numbers.borrow().iter().any(|((of, _), own)| *of == kind && made_up(*own) == number)
    }

    fn known(&self, kind: Kind, name: &str, answer: Answer<u32>) -> Answer<u32> {
        if answer == Answer::No {
            self.missing.borrow_mut().insert((kind, name.to_owned()));
        }
        or(answer, || made_up(self.number(kind, name)))
    }

    /// From 1, each name its own.
    fn number(&self, kind: Kind, name: &str) -> u32 {
        let mut numbers = self.numbers.borrow_mut();
        let next = numbers.len() as u32 + 1;
        *numbers.entry((kind, name.to_owned())).or_insert(next)
    }

    /// Of a cgroup that is not there: below the last one on the way that is.
    fn cgroup_below(&self, path: &str) -> CgroupAt {
        let mut at = CgroupAt { line: Line::default(), id: 1, level: 0 };
        let mut way = String::new();
        for step in path.split('/').filter(|step| !step.is_empty()) {
            way = format!("{way}/{step}");
            at = match self.real.cgroup(&way) {
                Answer::Is(there) => there,
                Answer::No | Answer::Unasked(_) => {
                    let id = MADE_UP | u64::from(self.number(Kind::Cgroup, &way));
                    let mut line = at.line;
                    if let Some(slot) = line.0.get_mut(at.level as usize) {
                        *slot = id;
                    }
                    CgroupAt { line, id, level: at.level + 1 }
                }
            };
        }
        at
    }
}

impl Host for Names<'_> {
    fn uid(&self, name: &str) -> Answer<u32> {
        self.known(Kind::User, name, self.real.uid(name))
    }

    fn gid(&self, name: &str) -> Answer<u32> {
        self.known(Kind::Group, name, self.real.gid(name))
    }

    fn executable(&self, path: &str) -> Answer<ExecutableAt> {
        or(self.real.executable(path), || ExecutableAt {
            executable: Executable { dev: u32::MAX, ino: self.number(Kind::Executable, path).into() },
            file_system: String::new(),
            open_to: Vec::new(),
            is_script: false,
        })
    }

    fn cgroup(&self, path: &str) -> Answer<CgroupAt> {
        Answer::Is(self.cgroup_below(path))
    }

    fn netns(&self, name: &str) -> Answer<u64> {
        let name = name.strip_prefix("/run/netns/").unwrap_or(name);
        or(self.real.netns(name), || MADE_UP | u64::from(self.number(Kind::Netns, name)))
    }

    fn account(&self, uid: u32) -> Option<Account> {
        self.real.account(uid)
    }

    fn users(&self) -> Vec<String> {
        self.real.users()
    }

    fn groups(&self) -> Vec<String> {
        self.real.groups()
    }
}

/// The last ones that a filter can name.
fn made_up(number: u32) -> u32 {
    u32::MAX - 1 - number
}

impl Kind {
    /// What it is called.
    pub fn name(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Group => "group",
            Self::Executable => "program",
            Self::Cgroup => "cgroup",
            Self::Netns => "network namespace",
        }
    }
}

fn or<T>(answer: Answer<T>, made_up: impl FnOnce() -> T) -> Answer<T> {
    match answer {
        Answer::Is(found) => Answer::Is(found),
        Answer::No | Answer::Unasked(_) => Answer::Is(made_up()),
    }
}

/// The kernel counts its numbers up from 1 and does not get here.
const MADE_UP: u64 = 1 << 63;

#[cfg(test)]
mod tests {
    use carnet_policy::file::Nowhere;

    use super::*;

    fn is<T>(answer: Answer<T>) -> T {
        let Answer::Is(found) = answer else { panic!() };
        found
    }

    #[test]
    fn one_name_is_one_thing() {
        let names = Names::on(&Nowhere);
        assert_eq!(names.uid("a"), names.uid("a"));
        assert_ne!(names.uid("a"), names.uid("b"));
        assert_ne!(is(names.executable("/a")).executable, is(names.executable("/b")).executable);
        assert_eq!(names.netns("blue"), names.netns("/run/netns/blue"));
    }

    #[test]
    fn cgroups_are_below_those_of_their_path() {
        let names = Names::on(&Nowhere);
        let [slice, service, other] = ["/a.slice", "/a.slice/b", "/c/b"].map(|path| is(names.cgroup(path)));
        assert!(service.line.is_below(&slice.line) && !other.line.is_below(&slice.line));
        assert_eq!((slice.level, service.level, is(names.cgroup("/")).level), (1, 2, 0));
    }
}
