//! Whose a flow is, as rules see it.

use std::{fs, net::SocketAddr, os::unix::fs::MetadataExt, path::PathBuf};

use carnet::Flow;
use tokio::net::TcpStream;

use super::route::Route;
use crate::{
    rules::{Origin, Rules},
    tap::{FlowInfo, Tap, TapFlow},
};

/// What is known of the application.
#[derive(Debug, Default)]
pub(super) struct Whose {
    pub(super) flow: Option<Flow>,
    pub(super) exe: Option<PathBuf>,
    cgroup: Option<String>,
}

impl Whose {
    /// What rules or a tap ask for is looked up while the process is there, hopefully; a record has numbers.
    pub(super) fn of(flow: Option<Flow>, rules: &Rules, taps: bool) -> Self {
        let origin = flow.as_ref().map(Flow::origin);
        let exe = origin.filter(|_| taps || rules.ask_for_exe()).and_then(carnet::Origin::executable_path);
        let cgroup = origin.filter(|_| rules.ask_for_cgroup()).and_then(cgroup);
        Self { flow, exe, cgroup }
    }

    pub(super) fn origin(&self) -> Option<&carnet::Origin> {
        self.flow.as_ref().map(Flow::origin)
    }

    pub(super) fn facts(&self) -> Origin<'_> {
        Origin { uid: self.origin().map(|origin| origin.uid), exe: self.exe.as_deref(), cgroup: self.cgroup.as_deref() }
    }

    /// The flow, as a tap is told of it.
    pub(super) fn tapped(&self, tap: &Tap, client: &TcpStream, route: &Route, name: Option<&str>) -> TapFlow {
        let peer = client.peer_addr().unwrap_or(SocketAddr::from(([0, 0, 0, 0], 0)));
        let chain = self.flow.as_ref().map_or(&[][..], Flow::chain);
        // A service knows the others by their handles only.
        let services: Vec<_> = chain.iter().map(|hop| format!("#{}", hop.handle)).collect();
        tap.flow(&FlowInfo {
            id: route.flow_id,
            source: self.origin().and_then(|origin| origin.source).unwrap_or(peer),
            destination: route.destination,
            name,
            pid: self.origin().map_or(0, |origin| origin.pid),
            comm: self.origin().map_or("", |origin| &origin.comm),
            exe: self.exe.as_deref(),
            uid: self.origin().map_or(0, |origin| origin.uid),
            services: &services.iter().map(String::as_str).collect::<Vec<_>>(),
        })
    }
}

/// The path of the cgroup, where the process is in it still: a cgroup's id is its folder's inode.
fn cgroup(origin: &carnet::Origin) -> Option<String> {
    let text = fs::read_to_string(format!("/proc/{}/cgroup", origin.pid)).ok()?;
    let path = text.lines().find_map(|line| line.strip_prefix("0::"))?;
    let is_it = MOUNTS
        .iter()
        .any(|mount| fs::metadata(format!("{mount}{path}")).is_ok_and(|folder| folder.ino() == origin.cgroup_id));
    is_it.then(|| path.to_owned())
}

/// Where the cgroup2 hierarchy is: alone, or beside those of version 1.
const MOUNTS: [&str; 2] = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];
