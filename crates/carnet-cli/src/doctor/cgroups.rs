//! Where cgroup2 is, where the caller is in it, and what runs of Carnet's are there.

use std::fs;
use std::path::Path;

use carnet_engine::cgroup::Hierarchy;
use carnet_engine::{Error, ErrorKind};
use rustix::fs::{Access, access};
use rustix::io::Errno;

use crate::doctor::finding::{Finding, Id};
use crate::doctor::privileges::Process;
use crate::doctor::report::Report;
use crate::run::place;

/// Cgroups.
pub fn look(report: &mut Report, hierarchy: Result<&Hierarchy, &Error>, process: &Process) {
    let hierarchy = match hierarchy {
        Ok(hierarchy) => hierarchy,
        Err(error) => return report.add(missing(error)),
    };
    let mount = hierarchy.mount();
    report.add(
        Finding::ok(Id::Cgroup2, format!("cgroup2 is mounted on {}", mount.display()))
            .with("mount", mount.to_string_lossy()),
    );
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let first_version = mounts.lines().filter(|line| line.split(' ').nth(2) == Some("cgroup")).count();
    if first_version > 0 {
        report.add(
            Finding::ok(
                Id::Cgroup2Hybrid,
                format!(
                    "{first_version} hierarchies of cgroup version 1 are mounted, too; Carnet uses version 2 alone, and \
                     owners in a policy are its paths: the line 0:: of /proc/PID/cgroup"
                ),
            )
            .with("version_1", first_version),
        );
    }
    own(report, hierarchy);
    creatable(report, mount, process);
    runs(report, hierarchy);
}

fn missing(error: &Error) -> Finding {
    if *error.kind() != ErrorKind::NoCgroup2 {
        let what = format!("where cgroup2 is mounted is not known: {error}");
        return Finding::problem(Id::Cgroup2Missing, what, "Mount /proc, and have this process read /proc/self/mounts");
    }
    Finding::problem(
        Id::Cgroup2Missing,
        "no cgroup2 hierarchy is mounted here (/proc/self/mounts)",
        "mount -t cgroup2 none /sys/fs/cgroup, or boot with systemd.unified_cgroup_hierarchy=1; in a container, mount the \
         host's /sys/fs/cgroup. ip netns exec hides it: use nsenter --net=/run/netns/NAME instead",
    )
}

fn own(report: &mut Report, hierarchy: &Hierarchy) {
    match place::own_cgroup(hierarchy) {
        Ok(own) if own.is_dir() => report.add(
            Finding::ok(Id::CgroupOwn, format!("this process is in {}", own.display()))
                .with("cgroup", own.to_string_lossy()),
        ),
        Ok(own) => report.add(Finding::warning(
            Id::CgroupOutside,
            format!("this process is in a cgroup that is not below the mount: {} is not there", own.display()),
            "It was moved, or the mount shows another part of the hierarchy. In a container, start it with its own cgroup \
             namespace (docker run --cgroupns private)",
        )),
        Err(error) => report.add(Finding::warning(
            Id::CgroupOutside,
            format!("the cgroup of this process is not known: {error:#}"),
            "Mount /proc",
        )),
    }
}

/// Asked, not tried: trying would make one.
fn creatable(report: &mut Report, mount: &Path, process: &Process) {
    let shown = mount.display();
    if let Some(limit) = exhausted(mount) {
        report.add(Finding::problem(
            Id::CgroupsNotCreatable,
            format!("no cgroup can be made below {shown}: {limit}"),
            format!("Raise it in {shown}, or remove cgroups that nobody uses"),
        ));
        return;
    }
    match access(mount, Access::WRITE_OK | Access::EXEC_OK) {
        Ok(()) => report.add(Finding::ok(Id::CgroupsCreatable, format!("cgroups can be made below {shown}"))),
        Err(Errno::ROFS) => report.add(Finding::problem(
            Id::CgroupsNotCreatable,
            format!("{shown} is mounted read-only, so carnet run cannot make its cgroups"),
            format!("mount -o remount,rw {shown}; in a container, start it with a writable cgroup mount (--privileged, or -v)"),
        )),
        Err(error) => {
            let what = format!("this process may not make cgroups below {shown}: {error}");
            // Without root that is no surprise, and root's answer is not known.
            if process.is_root {
                report.add(Finding::problem(Id::CgroupsNotCreatable, what, "Run it as root of the host"));
            } else {
                report.refused(Finding::warning(Id::CgroupsNotCreatable, what, "Run it as root (sudo)"));
            }
        }
    }
}

/// Limits of the number or the depth of cgroups. The host's root has none, but a container's root has.
fn exhausted(mount: &Path) -> Option<String> {
    let number = |file: &str| fs::read_to_string(mount.join(file)).ok()?.trim().parse::<u64>().ok();
    let statistics = fs::read_to_string(mount.join("cgroup.stat")).unwrap_or_default();
    let there = statistics.lines().find_map(|line| line.strip_prefix("nr_descendants ")?.parse::<u64>().ok());
    match (number("cgroup.max.descendants"), there, number("cgroup.max.depth")) {
        // A run has four at least: its own, app, services and one of a service.
        (Some(most), Some(there), _) if most < there + 4 => {
            Some(format!("there are {there} and cgroup.max.descendants is {most}"))
        }
        (_, _, Some(depth)) if depth < 3 => Some(format!("cgroup.max.depth is {depth}, and carnet run needs 3")),
        _ => None,
    }
}

fn runs(report: &mut Report, hierarchy: &Hierarchy) {
    for (path, is_alive) in place::runs_here(hierarchy).unwrap_or_default() {
        let shown = path.display();
        let finding = if is_alive {
            Finding::note(Id::RunActive, format!("a carnet run is going on in {shown}"), "Nothing")
        } else {
            Finding::warning(
                Id::RunLeftover,
                format!("{shown} was left by a carnet run that was killed together with its guardian"),
                "Nothing: the next carnet run ends what is in it and removes it",
            )
        };
        report.add(finding.with("cgroup", path.to_string_lossy()));
    }
}
