use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use libbpf_rs::Link;

use crate::cgroup::Cgroup;
use crate::load::program;
use crate::pin::is_on_a_cgroup;
use crate::{Engine, Error};

/// One program on one cgroup.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Attachment {
    /// Id of the cgroup.
    pub cgroup: u64,
    /// The program's name.
    pub program: &'static str,
}

/// The same with its link.
pub(crate) struct Attached {
    pub at: Attachment,
    pub link: Link,
}

/// Where connections begin and are accepted.
const CONNECTIONS: [&str; 6] = [
    "carnet_sockops",
    "carnet_sock_release",
    "carnet_getpeername4",
    "carnet_getpeername6",
    "carnet_connect4",
    "carnet_connect6",
];

/// Where what is not redirected begins.
const UNREDIRECTED: [&str; 4] = ["carnet_sock_create", "carnet_egress", "carnet_sendmsg4", "carnet_sendmsg6"];

/// Where services ask.
const OPTIONS: [&str; 4] = ["carnet_getsockopt", "carnet_setsockopt", "carnet_getsockname4", "carnet_getsockname6"];

/// All of them in the order in which they may be replaced or attached: what takes connections over is there before what
/// redirects them, and services can ask before they get the first one. Taken off in the reverse order.
pub(crate) fn in_order() -> impl DoubleEndedIterator<Item = &'static str> {
    OPTIONS.into_iter().chain(UNREDIRECTED).chain(CONNECTIONS)
}

/// A program's place in that order; what this build does not know comes first.
pub(crate) fn place_of(program: &str) -> Option<usize> {
    in_order().position(|name| name == program)
}

/// Whether this program redirects.
pub(crate) fn redirects(program: &str) -> bool {
    program.starts_with("carnet_connect")
}

impl Engine {
    /// Attaches to the cgroup whose connections are governed and which holds the services: all programs but those of the
    /// socket options. The connect programs come last, so that nothing is redirected before it can be handed over.
    pub fn attach_governed(&mut self, cgroup: &Cgroup) -> Result<(), Error> {
        self.attach(cgroup, &UNREDIRECTED)?;
        self.attach(cgroup, &CONNECTIONS)
    }

    /// Attaches those of the connections' programs whose names are wanted, so that a test sees which of them does what.
    #[doc(hidden)]
    pub fn attach_connections_where(&mut self, cgroup: &Cgroup, wanted: impl Fn(&str) -> bool) -> Result<(), Error> {
        let programs: Vec<_> = CONNECTIONS.into_iter().filter(|name| wanted(name)).collect();
        self.attach(cgroup, &programs)
    }

    /// Attaches the socket-option programs to a cgroup that holds services. Only there, because they make every
    /// getsockopt() and setsockopt() of the cgroup about 100 ns slower.
    pub fn attach_services(&mut self, cgroup: &Cgroup) -> Result<(), Error> {
        self.attach(cgroup, &OPTIONS)
    }

    /// Attaches everything to the cgroup of a service that is not below the governed one. Its connections without a
    /// record, and those of others in that cgroup, are left alone.
    pub fn attach_outside_service(&mut self, cgroup: &Cgroup) -> Result<(), Error> {
        self.attach(cgroup, &OPTIONS)?;
        self.attach(cgroup, &CONNECTIONS)
    }

    /// The links' descriptors. The programs stay attached while any process holds a duplicate of them.
    pub fn link_fds(&self) -> Vec<BorrowedFd<'_>> {
        self.links.iter().map(|attached| attached.link.as_fd()).collect()
    }

    /// What is attached, and to which cgroups.
    pub fn attachments(&self) -> impl Iterator<Item = &Attachment> {
        self.links.iter().map(|attached| &attached.at)
    }

    /// Takes all programs off this cgroup, those first which redirect. Returns how many there were.
    pub fn detach(&mut self, cgroup: u64) -> Result<usize, Error> {
        self.detach_where(|at| at.cgroup == cgroup)
    }

    /// Leaves the socket-option programs alone on this cgroup, as [`Engine::attach_services`] does: where it is in the
    /// governed one now, the others would run twice.
    pub fn narrow_to_services(&mut self, cgroup: u64) -> Result<usize, Error> {
        self.detach_where(|at| at.cgroup == cgroup && !OPTIONS.contains(&at.program))
    }

    /// Forgets links of cgroups that are gone, with the last of their sockets. Returns how many there were.
    pub fn forget_removed(&mut self) -> Result<usize, Error> {
        let removed: Vec<_> = self.links.extract_if(.., |attached| !is_on_a_cgroup(&attached.link)).collect();
        for attached in &removed {
            self.unpin_link(&attached.at)?;
        }
        Ok(removed.len())
    }

    /// What cannot be taken off stays among what is attached.
    fn detach_where(&mut self, is_meant: impl Fn(&Attachment) -> bool) -> Result<usize, Error> {
        let mut off: Vec<_> = self.links.extract_if(.., |attached| is_meant(&attached.at)).collect();
        // The last one goes first.
        off.sort_by_key(|attached| place_of(attached.at.program));
        let count = off.len();
        while let Some(attached) = off.pop() {
            let Attachment { cgroup, program } = &attached.at;
            let detached = attached.link.detach();
            let detached =
                detached.map_err(|error| Error::bpf(format!("cannot take {program} off the cgroup {cgroup}"), error));
            if let Err(error) = detached.and_then(|()| self.unpin_link(&attached.at)) {
                self.links.push(attached);
                self.links.extend(off);
                return Err(error);
            }
        }
        Ok(count)
    }

    /// What is attached there already stays as it is: an adopted engine is told of all its cgroups again.
    fn attach(&mut self, cgroup: &Cgroup, programs: &[&'static str]) -> Result<(), Error> {
        for &name in programs {
            let at = Attachment { cgroup: cgroup.id(), program: name };
            if self.attachments().any(|there| *there == at) {
                continue;
            }
            let link = program(&self.object, name)?.attach_cgroup(cgroup.as_fd().as_raw_fd()).map_err(|error| {
                Error::bpf(format!("cannot attach {name} to the cgroup {}", cgroup.path().display()), error)
            })?;
            let mut attached = Attached { at, link };
            self.pin_link(&mut attached)?;
            self.links.push(attached);
        }
        Ok(())
    }
}
