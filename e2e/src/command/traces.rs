use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use libbpf_rs::query::LinkInfoIter;
use libbpf_rs::{MapCore, MapHandle, Program};

use super::{Run, bpf_ids};
use crate::sockets::until;

/// Everything of one run that is seen in the system while it lives: what must be gone when it has ended.
///
/// Ids of programs, links and maps come from the descriptors of the run's own processes, so that other runs at the same
/// time do not matter.
#[derive(Clone, Debug, Default)]
pub struct Traces {
    /// Its cgroup.
    pub cgroup: Option<PathBuf>,
    /// `carnet run` and everything that descends from it.
    pub processes: BTreeSet<Process>,
    /// BPF programs that one of them has.
    pub programs: BTreeSet<u32>,
    /// BPF links.
    pub links: BTreeSet<u32>,
    /// BPF maps, without the one that all engines share: it is there as long as any of them is.
    pub maps: BTreeSet<u32>,
}

/// One process for all time: numbers are used again.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Process {
    /// Its number.
    pub pid: u32,
    start_time: u64,
}

impl Traces {
    /// What is there now.
    pub fn of(run: &Run) -> Self {
        let mut traces = Self { cgroup: run.cgroup_now(), ..Self::default() };
        let mut parents = vec![run.pid()];
        traces.processes.extend(Process::of(run.pid()));
        let all = processes();
        while let Some(parent) = parents.pop() {
            for &(process, of) in all.iter().filter(|(process, of)| *of == parent && process.pid != parent) {
                debug_assert_eq!(of, parent);
                parents.push(process.pid);
                traces.processes.insert(process);
            }
        }
        for process in &traces.processes {
            traces.programs.extend(bpf_ids(process.pid, "prog_id"));
            traces.links.extend(bpf_ids(process.pid, "link_id"));
            traces.maps.extend(bpf_ids(process.pid, "map_id"));
        }
        traces.maps.retain(|&id| !is_shared(id));
        traces
    }

    /// What is still there. A zombie has gone: somebody has yet to ask for its exit code.
    pub fn left(&self) -> Self {
        let those =
            |ids: &BTreeSet<u32>, there: &dyn Fn(u32) -> bool| ids.iter().copied().filter(|&id| there(id)).collect();
        // Links are listed, for they cannot be asked for one by one. A link that the list misses has its program.
        let links: BTreeSet<u32> = LinkInfoIter::default().map(|info| info.id).collect();
        Self {
            cgroup: self.cgroup.clone().filter(|path| path.exists()),
            processes: self.processes.iter().copied().filter(Process::lives).collect(),
            programs: those(&self.programs, &|id| Program::fd_from_id(id).is_ok()),
            links: those(&self.links, &|id| links.contains(&id)),
            maps: those(&self.maps, &|id| MapHandle::from_map_id(id).is_ok()),
        }
    }

    /// Waits until nothing of it is there. The kernel frees programs and maps a moment after their last user has gone.
    pub fn assert_gone(&self, why: &str) {
        let mut left = self.left();
        until(&format!("everything of the run to go ({why}); there were {self:?}"), || {
            left = self.left();
            left.is_nothing().then_some(())
        });
    }

    fn is_nothing(&self) -> bool {
        let Self { cgroup, processes, programs, links, maps } = self;
        cgroup.is_none() && processes.is_empty() && programs.is_empty() && links.is_empty() && maps.is_empty()
    }
}

impl Process {
    /// The one that has this number now.
    pub fn of(pid: u32) -> Option<Self> {
        Stat::of(pid).map(|stat| Self { pid, start_time: stat.start_time })
    }

    /// Whether it has not ended.
    pub fn lives(&self) -> bool {
        Stat::of(self.pid).is_some_and(|stat| stat.start_time == self.start_time && !matches!(stat.state, 'Z' | 'X'))
    }
}

fn is_shared(map: u32) -> bool {
    MapHandle::from_map_id(map).is_ok_and(|map| map.name() == "carnet_claims")
}

/// What is needed of proc(5)'s stat.
struct Stat {
    state: char,
    parent: u32,
    start_time: u64,
}

impl Stat {
    fn of(pid: u32) -> Option<Self> {
        let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let fields: Vec<&str> = text[text.rfind(')')? + 1..].split_ascii_whitespace().collect();
        Some(Self {
            state: fields.first()?.chars().next()?,
            parent: fields.get(1)?.parse().ok()?,
            start_time: fields.get(19)?.parse().ok()?,
        })
    }
}

/// All processes, each with its parent.
fn processes() -> Vec<(Process, u32)> {
    let entries = fs::read_dir("/proc").expect("/proc is mounted");
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter_map(|pid| Stat::of(pid).map(|stat| (Process { pid, start_time: stat.start_time }, stat.parent)))
        .collect()
}
