//! How many flows there is room for.

use std::fs;
use std::path::Path;

use rustix::process::{Resource, Rlimit, getrlimit};

use crate::doctor::finding::{Finding, Id, Level};
use crate::doctor::report::Report;

/// Limits of this process, of the kernel and of the network namespace.
pub fn look(report: &mut Report) {
    open_files(report);
    if let Some(limit) = number("/proc/sys/net/core/somaxconn") {
        report.add(backlog(limit));
    }
    // Before Linux 6.9 only the first network namespace shows it, and it holds for all.
    if let Some(limit) = number("/proc/sys/net/core/optmem_max") {
        report.add(socket_memory(limit));
    }
    if let Some((first, last)) = port_range() {
        report.add(ports(first, last));
    }
    let conntrack = ("/proc/sys/net/netfilter/nf_conntrack_count", "/proc/sys/net/netfilter/nf_conntrack_max");
    if let (Some(count), Some(most)) = (number(conntrack.0), number(conntrack.1)) {
        report.add(tracked(count, most));
    }
}

/// Carnet raises the soft limit as far as it may, so the hard one counts.
fn open_files(report: &mut Report) {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let shown = |limit: Option<u64>| limit.map_or_else(|| "unlimited".to_owned(), |limit| limit.to_string());
    let flows = maximum.map_or(u64::MAX, |files| files / DESCRIPTORS_PER_FLOW);
    let (level, action) = match flows {
        ..1_000 => (Level::Warning, "ulimit -Hn 65536 as root, or LimitNOFILE=65536 in a systemd unit"),
        _ => (Level::Ok, ""),
    };
    let what = format!(
        "open files: at most {} ({} until it is raised), and a service needs {DESCRIPTORS_PER_FLOW} for each flow that it has at once",
        shown(maximum),
        shown(current)
    );
    report.add(Finding::new(Id::OpenFiles, level, what, action).with("soft", current).with("hard", maximum));
}

fn backlog(limit: u64) -> Finding {
    let what = format!("at most {limit} connections can wait to be accepted on a listener (net.core.somaxconn)");
    let finding = match limit {
        ..1_024 => Finding::note(
            Id::Backlog,
            format!("{what}: where more come at once, connect() takes a second longer or more"),
            "sysctl -w net.core.somaxconn=4096, before services listen",
        ),
        _ => Finding::ok(Id::Backlog, what),
    };
    finding.with("limit", limit)
}

fn socket_memory(limit: u64) -> Finding {
    let what = format!("a socket may have {limit} bytes of options and storage (net.core.optmem_max)");
    let finding = match limit {
        ..RECORD_BYTES => Finding::problem(
            Id::SocketMemory,
            format!("{what}; a record needs about {RECORD_BYTES}, so connections are refused (reason no-room)"),
            "sysctl -w net.core.optmem_max=131072",
        ),
        RECORD_BYTES..TIGHT_BYTES => Finding::warning(
            Id::SocketMemory,
            format!("{what}; a record needs about {RECORD_BYTES} of them, and an application's own options the rest"),
            "sysctl -w net.core.optmem_max=131072",
        ),
        _ => Finding::ok(Id::SocketMemory, what),
    };
    finding.with("limit", limit).with("needed", RECORD_BYTES)
}

fn ports(first: u64, last: u64) -> Finding {
    let count = (last + 1).saturating_sub(first);
    let what = format!("{count} local ports ({first} to {last}, net.ipv4.ip_local_port_range)");
    let finding = match count {
        ..10_000 => Finding::note(
            Id::PortRange,
            format!(
                "{what}: all redirected connections go to one listener each, so a service can have so many at once"
            ),
            "sysctl -w net.ipv4.ip_local_port_range='10240 60999'",
        ),
        _ => Finding::ok(Id::PortRange, what),
    };
    finding.with("first", first).with("last", last)
}

fn tracked(count: u64, most: u64) -> Finding {
    let what = format!("{count} of {most} connections are tracked by netfilter (nf_conntrack_max)");
    // Every hop of a flow is a connection, and loopback is tracked too.
    let finding = if count.saturating_mul(10) >= most.saturating_mul(9) {
        Finding::warning(
            Id::Conntrack,
            format!("{what}: when it is full, new connections are dropped and hang; with Carnet each hop is one more"),
            "sysctl -w net.netfilter.nf_conntrack_max=262144, or leave loopback untracked (nft: notrack)",
        )
    } else {
        Finding::ok(Id::Conntrack, what)
    };
    finding.with("count", count).with("limit", most)
}

fn number(path: impl AsRef<Path>) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

fn port_range() -> Option<(u64, u64)> {
    let text = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").ok()?;
    let mut numbers = text.split_ascii_whitespace().map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

const DESCRIPTORS_PER_FLOW: u64 = 2;

/// What the kernel charges a socket for its storage: the record, and whose redirect it was.
const RECORD_BYTES: u64 = 1_024;
const TIGHT_BYTES: u64 = 4_096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_of_limits() {
        let cases = [
            (socket_memory(RECORD_BYTES - 1), Level::Problem),
            (socket_memory(RECORD_BYTES), Level::Warning),
            (socket_memory(20_480), Level::Ok),
            (backlog(128), Level::Note),
            (backlog(4_096), Level::Ok),
            (ports(32_768, 60_999), Level::Ok),
            (ports(60_000, 60_999), Level::Note),
            (ports(2, 1), Level::Note),
            (tracked(90, 100), Level::Warning),
            (tracked(89, 100), Level::Ok),
        ];
        for (finding, level) in cases {
            assert_eq!(finding.level, level, "{finding:?}");
            assert_eq!(finding.action.is_empty(), level == Level::Ok, "{finding:?}");
        }
    }
}
