//! What the kernel can do, which loading shows and no version number does.

use std::fs;

use carnet_engine::cgroup::Hierarchy;
use carnet_engine::probe::{self, Feature, Need};
use carnet_engine::{Error, ErrorKind};

use crate::doctor::finding::{Finding, Id, Level};
use crate::doctor::privileges::Process;
use crate::doctor::report::Report;

/// Whether this process may load programs. Where it may not, [`look`] has said so.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Bpf {
    Allowed,
    Refused,
}

/// Loads Carnet's programs without attaching them; and where that fails, small ones that say why.
pub fn look(report: &mut Report, hierarchy: Option<&Hierarchy>, process: &Process) -> Bpf {
    if !probe::has_btf() {
        report.add(Finding::problem(
            Id::TypesMissing,
            "the kernel does not tell its types: there is no /sys/kernel/btf/vmlinux",
            "Use a kernel with CONFIG_DEBUG_INFO_BTF, as all large distributions build theirs; in a container, mount /sys",
        ));
    }
    lockdown(report);
    let loaded = hierarchy.map(probe::load);
    let programs_load = matches!(loaded, Some(Ok(())));
    let features = probe::features();
    let bpf = match &features {
        _ if process.in_user_namespace => Bpf::Refused,
        Err(error) if *error.kind() == ErrorKind::NoPrivilege => Bpf::Refused,
        _ => Bpf::Allowed,
    };
    report.add(match loaded {
        Some(Ok(())) => Finding::ok(Id::ProgramsLoad, "Carnet's programs load in this kernel"),
        Some(Err(_)) if process.in_user_namespace => untried("this process is in a user namespace"),
        Some(Err(_)) if bpf == Bpf::Refused => untried("this process lacks the capabilities"),
        Some(Err(error)) if *error.kind() == ErrorKind::NoPrivilege => untried(&error.to_string()),
        Some(Err(error)) => refused(&error),
        None => untried("there is no cgroup2 hierarchy to load them for"),
    });
    let features = features.unwrap_or_else(|error| {
        if bpf == Bpf::Allowed {
            report.add(Finding::warning(
                Id::FeaturesUntried,
                format!("what the kernel lacks is not known: {error}"),
                "If Carnet's programs do not load here, report it with this message",
            ));
        }
        Vec::new()
    });
    // Where nothing loads there is one cause, and it has been told: the system call is refused.
    if bpf == Bpf::Allowed && features.iter().any(|feature| feature.missing.is_none()) {
        for feature in &features {
            report_feature(report, feature, programs_load);
        }
    }
    bpf
}

fn refused(error: &Error) -> Finding {
    let word = match error.kind() {
        ErrorKind::MissingFeature(word) => word.clone(),
        _ => error.to_string(),
    };
    Finding::problem(
        Id::ProgramsRefused,
        format!("the kernel refuses Carnet's programs: {word}"),
        "Carnet needs Linux 6.1 or newer with CONFIG_CGROUP_BPF and CONFIG_DEBUG_INFO_BTF; RHEL 9 (5.14) is too old. With \
         EPERM or EACCES, something forbids bpf(): a seccomp filter, a security module, a container. Else report it with \
         this message and the kernel's version",
    )
    .with("verifier", word)
}

fn untried(why: &str) -> Finding {
    Finding::warning(
        Id::ProgramsUntried,
        format!("whether Carnet's programs load is not known: {why}"),
        "See the other findings; then run it again",
    )
}

fn report_feature(report: &mut Report, feature: &Feature, programs_load: bool) {
    let Some(word) = &feature.missing else {
        if feature.need == Need::Mptcp {
            report.add(mptcp());
        }
        return;
    };
    let (what, action) = match feature.need {
        Need::Mptcp if programs_load => {
            let what = "this kernel has no MPTCP: programs that ask for it get plain TCP, or an error";
            report.add(Finding::note(Id::MptcpMissing, what, "Nothing").with("kernel", word.clone()));
            return;
        }
        Need::Mptcp => ("the way from a subflow to its MPTCP connection", "CONFIG_MPTCP"),
        Need::Connect => ("programs at connect()", "CONFIG_CGROUP_BPF"),
        Need::TcpEvents => ("programs at TCP's events", "CONFIG_CGROUP_BPF"),
        Need::SocketOptions => ("programs at getsockopt()", "CONFIG_CGROUP_BPF"),
        Need::SocketStorage => ("socket storage", "CONFIG_BPF_SYSCALL and CONFIG_NET"),
        Need::RingBuffer => ("the BPF ring buffer", "Linux 5.8 or newer"),
        Need::ListenerLookup => ("the lookup of listeners from programs", "CONFIG_INET"),
        Need::ChosenErrno => ("refusals with a chosen errno", "Linux 5.18 or newer"),
        Need::KernelReads => ("programs that read kernel memory", "CONFIG_BPF_EVENTS, and no lockdown=confidentiality"),
        _ => ("something that Carnet needs", "a newer kernel"),
    };
    report.add(
        Finding::problem(Id::FeatureMissing, format!("the kernel lacks {what}: {word}"), format!("It needs {action}"))
            .with("feature", feature.need.name())
            .with("kernel", word.clone()),
    );
}

/// Whether sockets may be MPTCP ones, in this network namespace.
fn mptcp() -> Finding {
    match fs::read_to_string("/proc/sys/net/mptcp/enabled") {
        Ok(value) if value.trim() != "0" => Finding::ok(Id::MptcpOn, "MPTCP is on, and programs can tell its sockets"),
        _ => Finding::note(
            Id::MptcpOff,
            "MPTCP is off in this network namespace (net.mptcp.enabled): programs that ask for it get an error or plain TCP",
            "Nothing, unless a service or command wants it: sysctl -w net.mptcp.enabled=1",
        ),
    }
}

fn lockdown(report: &mut Report) {
    // "none [integrity] confidentiality"; no such file where the kernel has no lockdown, or no securityfs is mounted.
    let Ok(modes) = fs::read_to_string("/sys/kernel/security/lockdown") else { return };
    let mode = modes.split_ascii_whitespace().find_map(|mode| mode.strip_prefix('[')?.strip_suffix(']'));
    let Some(mode) = mode.filter(|mode| *mode != "none") else { return };
    let (level, what, action) = match mode {
        "confidentiality" => (
            Level::Problem,
            "which keeps programs from reading kernel memory, as Carnet's must",
            "Boot with lockdown=integrity",
        ),
        _ => (Level::Note, "which leaves Carnet alone", "Nothing"),
    };
    report.add(
        Finding::new(Id::Lockdown, level, format!("the kernel is in lockdown mode {mode}, {what}"), action)
            .with("mode", mode),
    );
}
