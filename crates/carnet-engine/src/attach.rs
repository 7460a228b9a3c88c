use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use crate::cgroup::Cgroup;
use crate::load::program;
use crate::{Engine, Error};

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
const OPTIONS: [&str; 2] = ["carnet_getsockopt", "carnet_setsockopt"];

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
        self.links.iter().map(AsFd::as_fd).collect()
    }

    fn attach(&mut self, cgroup: &Cgroup, programs: &[&str]) -> Result<(), Error> {
        for name in programs {
            let link = program(&self.object, name)?.attach_cgroup(cgroup.as_fd().as_raw_fd()).map_err(|error| {
                Error::bpf(format!("cannot attach {name} to the cgroup {}", cgroup.path().display()), error)
            })?;
            self.links.push(link);
        }
        Ok(())
    }
}
