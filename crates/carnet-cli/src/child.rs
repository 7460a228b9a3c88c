//! What a process of the run does to itself before it becomes what it is for: joins its cgroup, gives up privileges, and
//! ties its life to that of `carnet run`.

use std::ffi::CString;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::Args;
use nix::unistd::{Gid, Uid, User, initgroups, setgid, setgroups, setuid};
use rustix::process::{Pid, Resource, Rlimit, Signal, getppid, getrlimit, set_parent_process_death_signal, setrlimit};

use crate::run::Signals;

/// Where in the run a process belongs, and as whom it runs. On the command line of the hidden subcommands.
#[derive(Args, Clone, Debug)]
pub struct Place {
    /// Directory of the cgroup to join.
    #[arg(long)]
    pub cgroup: PathBuf,
    /// Process id of `carnet run`, whose end is this process's end.
    #[arg(long)]
    pub parent: i32,
    /// Uid to run as, with the groups which the user has; without it, whoever the caller is.
    #[arg(long, requires = "gid")]
    pub uid: Option<u32>,
    /// Its gid.
    #[arg(long)]
    pub gid: Option<u32>,
    /// A service: many connections, many files.
    #[arg(long)]
    pub many_files: bool,
}

impl Place {
    /// As arguments, for [`Place`]'s own parser on the other side.
    pub fn arguments(&self) -> Vec<std::ffi::OsString> {
        let mut arguments: Vec<std::ffi::OsString> =
            vec!["--cgroup".into(), self.cgroup.clone().into(), "--parent".into(), self.parent.to_string().into()];
        for (name, id) in [("--uid", self.uid), ("--gid", self.gid)] {
            arguments.extend(id.into_iter().flat_map(|id| [name.into(), id.to_string().into()]));
        }
        if self.many_files {
            arguments.push("--many-files".into());
        }
        arguments
    }

    /// Goes there. Call it before any thread is started: a cgroup is joined by the whole process, but credentials and
    /// the death signal are the thread's.
    pub fn enter(&self) -> Result<Option<User>> {
        let procs = self.cgroup.join("cgroup.procs");
        fs::write(&procs, "0").with_context(|| format!("cannot join the cgroup {}", self.cgroup.display()))?;
        if self.many_files {
            raise_file_limit();
        }
        Signals::give_back()?;
        let user = self.become_user()?;
        // After the change of credentials, which clears it.
        set_parent_process_death_signal(Some(Signal::KILL)).context("cannot ask to end with carnet")?;
        if getppid() != Pid::from_raw(self.parent) {
            bail!("carnet has ended");
        }
        Ok(user)
    }

    fn become_user(&self) -> Result<Option<User>> {
        let (Some(uid), Some(gid)) = (self.uid.map(Uid::from_raw), self.gid.map(Gid::from_raw)) else {
            return Ok(None);
        };
        let user = User::from_uid(uid).with_context(|| format!("cannot look up user {uid}"))?;
        let failed = || format!("cannot become user {uid}, group {gid}");
        match user.as_ref().filter(|_| uid.as_raw() != NOBODY) {
            Some(user) => {
                let name = CString::new(&user.name[..]).with_context(failed)?;
                initgroups(&name, gid).with_context(failed)?;
            }
            None => setgroups(&[]).with_context(failed)?,
        }
        setgid(gid).with_context(failed)?;
        setuid(uid).with_context(failed)?;
        Ok(user)
    }
}

/// As far as may be. Not further than [`MANY_FILES`]: there are programs that size tables by the limit, or close every
/// number up to it.
fn raise_file_limit() {
    let before = getrlimit(Resource::Nofile);
    let enough = |limit: Option<u64>| limit.is_none_or(|limit| limit >= MANY_FILES);
    if enough(before.current) {
        return;
    }
    let hard = if enough(before.maximum) { before.maximum } else { Some(MANY_FILES) };
    if setrlimit(Resource::Nofile, Rlimit { current: Some(MANY_FILES), maximum: hard }).is_err() {
        // The hard limit is for root to raise, and not in every container. Who needs more files than there are says so.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: before.maximum, maximum: before.maximum });
    }
}

/// The uid and gid of nobody, which the kernel shows where there is none to show.
pub const NOBODY: u32 = 65534;

/// 10,000 flows take two files each, with room for more.
const MANY_FILES: u64 = 65536;

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        place: Place,
    }

    #[test]
    fn a_place_comes_through_the_command_line() {
        let whole = Place { cgroup: "/a b/c".into(), parent: 42, uid: Some(1), gid: Some(2), many_files: true };
        let bare = Place { uid: None, gid: None, many_files: false, ..whole.clone() };
        for place in [whole, bare] {
            let line = std::iter::once("x".into()).chain(place.arguments());
            let parsed = Line::try_parse_from(line).unwrap().place;
            assert_eq!(format!("{parsed:?}"), format!("{place:?}"));
        }
    }
}
