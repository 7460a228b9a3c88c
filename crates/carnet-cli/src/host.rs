//! What a policy file names, looked up on this host. Needs no privilege: what may not be seen is not looked up.

mod executable;

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use carnet_engine::cgroup::Hierarchy;
use carnet_policy::Line;
use carnet_policy::file::{Account, Answer, CgroupAt, ExecutableAt, Host};
use nix::errno::Errno;
use nix::unistd::{Group, Uid, User};

/// The host that the command runs on.
pub struct ThisHost {
    hierarchy: Option<Hierarchy>,
    netns: Option<CookieOf>,
}

/// Tells the cookie of the network namespace that a file is.
type CookieOf = Box<dyn Fn(&Path) -> io::Result<u64> + Send + Sync>;

impl ThisHost {
    /// Cgroups are looked for where cgroup2 is mounted now. Network namespaces are not looked up.
    pub fn new() -> Self {
        Self { hierarchy: Hierarchy::find().ok(), netns: None }
    }

    /// The same, with what tells the cookie of the network namespace that a file is, for whoever may ask.
    pub fn with_netns(self, cookie: impl Fn(&Path) -> io::Result<u64> + Send + Sync + 'static) -> Self {
        Self { netns: Some(Box::new(cookie)), ..self }
    }
}

impl Host for ThisHost {
    fn uid(&self, name: &str) -> Answer<u32> {
        known(User::from_name(name).map(|user| user.map(|user| user.uid.as_raw())))
    }

    fn gid(&self, name: &str) -> Answer<u32> {
        known(Group::from_name(name).map(|group| group.map(|group| group.gid.as_raw())))
    }

    fn executable(&self, path: &str) -> Answer<ExecutableAt> {
        seen(executable::look(Path::new(path)), "the program")
    }

    fn cgroup(&self, path: &str) -> Answer<CgroupAt> {
        match &self.hierarchy {
            Some(hierarchy) => seen(cgroup(hierarchy, path), "the cgroup"),
            None => Answer::Unasked("no cgroup2 hierarchy is mounted".into()),
        }
    }

    fn netns(&self, name: &str) -> Answer<u64> {
        let path = match name.starts_with('/') {
            true => PathBuf::from(name),
            false => Path::new("/run/netns").join(name),
        };
        match (path.try_exists(), &self.netns) {
            (Ok(false), _) => Answer::No,
            (Ok(true), Some(cookie)) => seen(cookie(&path), "the network namespace"),
            (Ok(true), None) => Answer::Unasked("only the engine tells network namespaces apart".into()),
            (Err(error), _) => Answer::Unasked(format!("cannot look at the network namespace: {error}")),
        }
    }

    fn account(&self, uid: u32) -> Option<Account> {
        let user = User::from_uid(Uid::from_raw(uid)).ok()??;
        Some(Account { name: user.name, shell: user.shell.display().to_string(), gid: user.gid.as_raw() })
    }

    fn users(&self) -> Vec<String> {
        names("/etc/passwd")
    }

    fn groups(&self) -> Vec<String> {
        names("/etc/group")
    }
}

fn known(found: nix::Result<Option<u32>>) -> Answer<u32> {
    match found {
        Ok(Some(id)) => Answer::Is(id),
        // Some sources of names say so in the place of "none".
        Ok(None) | Err(Errno::ENOENT | Errno::ESRCH | Errno::EBADF | Errno::EPERM) => Answer::No,
        Err(error) => Answer::Unasked(format!("cannot ask for users and groups: {}", error.desc())),
    }
}

fn seen<T>(found: io::Result<T>, what: &str) -> Answer<T> {
    match found {
        Ok(found) => Answer::Is(found),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Answer::No,
        Err(error) => Answer::Unasked(format!("cannot look at {what}: {error}")),
    }
}

/// A cgroup's id is its directory's inode.
fn cgroup(hierarchy: &Hierarchy, path: &str) -> io::Result<CgroupAt> {
    let mut at = CgroupAt { line: Line::default(), id: fs::metadata(hierarchy.mount())?.ino(), level: 0 };
    let mut place = hierarchy.mount().to_owned();
    for step in path.split('/').filter(|step| !step.is_empty()) {
        place.push(step);
        let metadata = fs::symlink_metadata(&place)?;
        if !metadata.is_dir() {
            return Err(io::ErrorKind::NotFound.into());
        }
        at.id = metadata.ino();
        if let Some(slot) = at.line.0.get_mut(at.level as usize) {
            *slot = at.id;
        }
        at.level += 1;
    }
    Ok(at)
}

/// For one that is misspelt. Names from elsewhere, such as LDAP, are not listed.
fn names(file: &str) -> Vec<String> {
    let text = fs::read(file).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    text.lines().filter_map(|line| Some(line.split_once(':')?.0.to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_and_groups_are_found_by_name() {
        let host = ThisHost::new();
        assert_eq!((host.uid("root"), host.gid("root")), (Answer::Is(0), Answer::Is(0)));
        assert_eq!((host.uid("nobody here"), host.gid("nobody here")), (Answer::No, Answer::No));
        assert_eq!(host.account(0).map(|account| account.name).as_deref(), Some("root"));
        assert!(host.users().contains(&"root".to_owned()) && host.groups().contains(&"root".to_owned()));
    }

    #[test]
    fn a_program_is_the_file_that_links_lead_to() {
        let host = ThisHost::new();
        let Answer::Is(found) = host.executable("/proc/self/exe") else { panic!() };
        let own = std::env::current_exe().unwrap();
        assert_eq!(found.executable.ino, fs::metadata(&own).unwrap().ino());
        assert_eq!(host.executable(own.to_str().unwrap()), Answer::Is(found));
        assert_eq!(host.executable("/no/such/program"), Answer::No);
        assert_eq!(host.executable("/etc/passwd/x"), Answer::No);
        assert_eq!(host.executable("/etc"), Answer::No);
    }

    #[test]
    fn a_network_namespace_that_is_not_there_is_none() {
        let host = ThisHost::new();
        assert_eq!(host.netns("no-such-namespace"), Answer::No);
        assert!(matches!(host.netns("/proc/self/ns/net"), Answer::Unasked(_)));
        assert_eq!(host.with_netns(|_| Ok(7)).netns("/proc/self/ns/net"), Answer::Is(7));
    }
}
