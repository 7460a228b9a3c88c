use super::open;
use crate::{Error, ErrorKind, load};

/// One thing of the kernel that Carnet needs or can use.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Need {
    /// Programs at connect(): `CONFIG_CGROUP_BPF`.
    Connect,
    /// Programs at TCP's own events.
    TcpEvents,
    /// Programs at getsockopt() and setsockopt().
    SocketOptions,
    /// Socket storage, where records are.
    SocketStorage,
    /// The ring buffer for events.
    RingBuffer,
    /// Looking up who listens.
    ListenerLookup,
    /// Refusing with a chosen errno.
    ChosenErrno,
    /// Reading kernel memory from programs. Not under lockdown's `confidentiality`.
    KernelReads,
    /// From a subflow to its MPTCP connection: `CONFIG_MPTCP`. Carnet works without.
    Mptcp,
}

impl Need {
    /// A word with dashes, which does not change.
    pub fn name(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::TcpEvents => "tcp-events",
            Self::SocketOptions => "socket-options",
            Self::SocketStorage => "socket-storage",
            Self::RingBuffer => "ring-buffer",
            Self::ListenerLookup => "listener-lookup",
            Self::ChosenErrno => "chosen-errno",
            Self::KernelReads => "kernel-reads",
            Self::Mptcp => "mptcp",
        }
    }
}

/// Whether it is there.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Feature {
    /// What.
    pub need: Need,
    /// Why not, in the kernel's or the loader's words. `None`: it is there.
    pub missing: Option<String>,
}

/// Asks the kernel for each [`Need`] by loading a program of a few instructions that has it. Fails where the process
/// may not load programs: then every answer would be no.
pub fn features() -> Result<Vec<Feature>, Error> {
    if let Some(missing) = load::missing_capabilities() {
        let what = format!("cannot load programs: the process lacks {missing}");
        return Err(Error::new(ErrorKind::NoPrivilege, what));
    }
    PROBES.iter().map(|&(need, program, maps)| Ok(Feature { need, missing: refusal(program, maps)? })).collect()
}

/// Why the kernel does not take this program.
fn refusal(program: &str, maps: &[&str]) -> Result<Option<String>, Error> {
    Ok(match open(&[program], maps)?.load() {
        Ok(_) => None,
        Err(error) => Some(load::cause_in_log().unwrap_or_else(|| error.to_string())),
    })
}

/// The programs of `bpf/probe.bpf.c` and the maps that they use.
const PROBES: [(Need, &str, &[&str]); 9] = [
    (Need::Connect, "carnet_need_conn", &[]),
    (Need::TcpEvents, "carnet_need_ops", &[]),
    (Need::SocketOptions, "carnet_need_opt", &[]),
    (Need::SocketStorage, "carnet_need_stor", &["carnet_storage"]),
    (Need::RingBuffer, "carnet_need_ring", &["carnet_ring"]),
    (Need::ListenerLookup, "carnet_need_find", &[]),
    (Need::ChosenErrno, "carnet_need_ret", &[]),
    (Need::KernelReads, "carnet_need_read", &[]),
    (Need::Mptcp, "carnet_need_mptcp", &[]),
];
