//! What the calling process may do.

use std::{fs, io};

use carnet_engine::probe;

use crate::doctor::finding::{Finding, Id};
use crate::doctor::report::Report;

/// The calling process, as `/proc/self` shows it.
#[derive(Clone, Debug)]
pub struct Process {
    /// It is uid 0, in whatever user namespace.
    pub is_root: bool,
    /// Its user namespace is not the host's.
    pub in_user_namespace: bool,
    no_new_privileges: bool,
    seccomp: u32,
}

impl Process {
    /// The one that asks.
    pub fn of_caller() -> io::Result<Self> {
        let status = fs::read_to_string("/proc/self/status")?;
        let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
        Ok(Self::parse(&status, &map))
    }

    fn parse(status: &str, uid_map: &str) -> Self {
        let field = |name: &str| {
            let value = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
            value.split_ascii_whitespace().nth(usize::from(name == "Uid"))?.parse::<u32>().ok()
        };
        Self {
            is_root: field("Uid") == Some(0),
            in_user_namespace: !uid_map.is_empty() && !is_whole(uid_map),
            no_new_privileges: field("NoNewPrivs") == Some(1),
            seccomp: field("Seccomp").unwrap_or_default(),
        }
    }
}

/// Capabilities and what takes them away.
pub fn look(report: &mut Report, process: &Process) {
    match probe::missing_capabilities() {
        None => report.add(Finding::ok(Id::Capabilities, "this process has the capabilities that Carnet needs")),
        Some(missing) if process.is_root => report.add(
            Finding::problem(
                Id::CapabilitiesMissing,
                format!("this process is root and lacks {missing}"),
                "In a container, give it these: docker run --cap-add BPF --cap-add PERFMON --cap-add NET_ADMIN, \
                 and --cap-add SYS_ADMIN, which it needs to know of other engines. In a systemd unit, see \
                 CapabilityBoundingSet=",
            )
            .with("missing", missing),
        ),
        Some(missing) => report.refused(
            Finding::warning(
                Id::CapabilitiesMissing,
                format!("this process lacks {missing}, so the most important things could not be looked at"),
                "sudo carnet doctor",
            )
            .with("missing", missing),
        ),
    }
    if process.in_user_namespace {
        report.add(Finding::problem(
            Id::UserNamespace,
            "this process is in a user namespace (/proc/self/uid_map is not the host's): the kernel takes programs only \
             from the host's users, whatever capabilities it has here",
            "Run it outside: on the host, or in a container without a user namespace (podman as root, docker without userns-remap)",
        ));
    }
    if process.no_new_privileges {
        report.add(Finding::note(
            Id::NoNewPrivileges,
            "no_new_privs is set here, and so for every command that carnet run starts here: set-uid programs such as sudo \
             do not work in it",
            "Nothing, unless the command needs sudo. In a systemd unit: NoNewPrivileges=no",
        ));
    }
    if process.seccomp != 0 {
        report.add(
            Finding::note(
                Id::Seccomp,
                "a seccomp filter is on this process: it may refuse bpf() and other calls with an errno of its own choice",
                "If programs do not load with EPERM and no capability is missing, allow bpf(): docker run --security-opt \
                 seccomp=unconfined, or SystemCallFilter= in a systemd unit",
            )
            .with("mode", process.seccomp),
        );
    }
    if fs::read_to_string("/proc/sys/kernel/unprivileged_bpf_disabled").is_ok_and(|value| value.trim() == "0") {
        report.add(Finding::note(
            Id::UnprivilegedBpf,
            "every user may load BPF programs (kernel.unprivileged_bpf_disabled is 0)",
            "Carnet does not need that: sysctl -w kernel.unprivileged_bpf_disabled=2",
        ));
    }
}

/// The host's namespace maps every uid to itself: one line, from 0 to 0, 4294967295 of them.
fn is_whole(uid_map: &str) -> bool {
    uid_map.split_ascii_whitespace().eq(["0", "0", "4294967295"])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_of_the_host() {
        let status = "Name:\tcarnet\nUid:\t1000\t0\t0\t0\nNoNewPrivs:\t0\nSeccomp:\t0\n";
        let process = Process::parse(status, "         0          0 4294967295\n");
        assert!(process.is_root, "the effective uid counts");
        assert!(!process.in_user_namespace && !process.no_new_privileges && process.seccomp == 0);
    }

    #[test]
    fn somebody_in_a_container() {
        let status = "Uid:\t0\t1000\t0\t0\nNoNewPrivs:\t1\nSeccomp:\t2\n";
        let process = Process::parse(status, "0 100000 65536\n");
        assert!(!process.is_root && process.in_user_namespace && process.no_new_privileges && process.seccomp == 2);
    }

    #[test]
    fn nothing_is_known_of_an_empty_status() {
        let process = Process::parse("", "");
        assert!(!process.is_root && !process.in_user_namespace && !process.no_new_privileges && process.seccomp == 0);
    }
}
