//! What a policy file names and only a host knows.

use crate::{Executable, Line};

/// Looks up what a policy file names.
pub trait Host {
    /// The user of this name.
    fn uid(&self, name: &str) -> Answer<u32>;

    /// The group of this name.
    fn gid(&self, name: &str) -> Answer<u32>;

    /// The program at this absolute path, links followed.
    fn executable(&self, path: &str) -> Answer<ExecutableAt>;

    /// The cgroup at this path below the root cgroup; it begins with a slash.
    fn cgroup(&self, path: &str) -> Answer<CgroupAt>;

    /// The cookie of the network namespace of this name, or at this absolute path.
    fn netns(&self, name: &str) -> Answer<u64>;

    /// What is known of the user with this uid.
    fn account(&self, uid: u32) -> Option<Account>;

    /// All names of users that are known, for one that is misspelt. May be empty.
    fn users(&self) -> Vec<String>;

    /// All names of groups that are known.
    fn groups(&self) -> Vec<String>;
}

/// What a host says of a name.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Answer<T> {
    /// It is this.
    Is(T),
    /// There is none.
    No,
    /// It was not looked up, and why, in words that follow a colon.
    Unasked(String),
}

/// What is known of a user.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Account {
    /// Its name.
    pub name: String,
    /// What is started when the user logs in.
    pub shell: String,
    /// Its primary group.
    pub gid: u32,
}

/// A program file.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ExecutableAt {
    /// As the kernel knows it.
    pub executable: Executable,
    /// Type of its file system, such as `ext4`.
    pub file_system: String,
    /// The file and the folders above it that others than root can write to.
    pub open_to: Vec<OpenTo>,
    /// Whether it is a script, so that its interpreter is what runs.
    pub is_script: bool,
}

/// A file or folder that others than root can write to.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct OpenTo {
    /// Which.
    pub path: String,
    /// And who can.
    pub writers: Writers,
}

/// Who can write to a file or folder.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Writers {
    /// Its owner.
    Uid(u32),
    /// Members of its group.
    Gid(u32),
    /// Everybody.
    Everybody,
}

/// A cgroup.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct CgroupAt {
    /// Its way from the root.
    pub line: Line,
    /// Its id.
    pub id: u64,
    /// Depth below the root, which is 0.
    pub level: u32,
}

/// A host of which nothing is known: no name is looked up.
#[derive(Clone, Copy, Debug, Default)]
pub struct Nowhere;

impl Host for Nowhere {
    fn uid(&self, _: &str) -> Answer<u32> {
        unasked()
    }

    fn gid(&self, _: &str) -> Answer<u32> {
        unasked()
    }

    fn executable(&self, _: &str) -> Answer<ExecutableAt> {
        unasked()
    }

    fn cgroup(&self, _: &str) -> Answer<CgroupAt> {
        unasked()
    }

    fn netns(&self, _: &str) -> Answer<u64> {
        unasked()
    }

    fn account(&self, _: u32) -> Option<Account> {
        None
    }

    fn users(&self) -> Vec<String> {
        Vec::new()
    }

    fn groups(&self) -> Vec<String> {
        Vec::new()
    }
}

fn unasked<T>() -> Answer<T> {
    Answer::Unasked("no host was asked".into())
}
