//! A governed cgroup with a service, a bpf file system of the test's own, and a load.

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;

use carnet::Redirect;
use carnet_e2e::load::{Clients, Serving};
use carnet_e2e::programs::Scratch;
use carnet_e2e::sockets::{accept, connect, listen, until};
use carnet_e2e::{Ground, Running, enter};
use carnet_engine::cgroup::Cgroup;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};

pub struct Course {
    pub ground: Ground,
    pub service: Cgroup,
    pub listener: TcpListener,
    /// Nobody listens there: who is not redirected is refused.
    pub destination: SocketAddr,
    pub folder: PathBuf,
    bpffs: PathBuf,
    _scratch: Scratch,
}

impl Course {
    pub fn new() -> Self {
        let ground = Ground::new();
        // Nobody else sees what is mounted here, and it goes with this thread at the latest.
        unshare(CloneFlags::CLONE_NEWNS).expect("a mount namespace; needs root");
        let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        mount(None::<&str>, "/", None::<&str>, private, None::<&str>).expect("private mounts");
        let scratch = Scratch::new();
        let bpffs = scratch.file("bpf");
        fs::create_dir(&bpffs).unwrap();
        mount(Some("bpf"), &bpffs, Some("bpf"), MsFlags::empty(), None::<&str>).expect("a bpf file system");

        let service = ground.service(0);
        let listener = ground.within(&service, || listen("127.0.0.1:0"));
        let nobody = TcpListener::bind("127.0.0.1:0").unwrap();
        let destination = nobody.local_addr().unwrap();
        Self { ground, service, listener, destination, folder: bpffs.join("carnet"), bpffs, _scratch: scratch }
    }

    /// A process with an engine: see `carnet-e2e-pinned`.
    pub fn process(&self, how: &str) -> Running {
        let mut command = Command::new(env!("CARGO_BIN_EXE_carnet-e2e-pinned"));
        command.arg(how).arg(&self.folder).arg(self.ground.governed.path()).arg(self.service.path());
        Running::start(command.arg(self.listener.local_addr().unwrap().to_string()))
    }

    /// One that has pinned and attached its engine.
    pub fn pinned(&self, how: &str) -> Running {
        let mut process = self.process(how);
        assert_eq!(process.line(), "attached");
        process
    }

    pub fn load(&self) -> Load {
        let mut client = enter(&self.ground.app, env!("CARGO_BIN_EXE_carnet-e2e-pinned"));
        client.arg("connects").arg(self.destination.to_string());
        let destination = self.destination;
        let judge = move |accepted: &TcpStream| match Redirect::of(accepted).flow() {
            Ok(flow) if flow.destination() == destination => Ok(()),
            other => Err(format!("{other:?}")),
        };
        Load { service: Serving::at(&self.listener, judge), clients: Clients::start([client]) }
    }

    /// An application's connection, and the socket with which the service has accepted it.
    pub fn flow(&self) -> (TcpStream, TcpStream) {
        let client = self.ground.within(&self.ground.app, || connect(self.destination)).expect("connect");
        let accepted = accept(&self.listener);
        assert_eq!(Redirect::of(&accepted).flow().expect("flow").destination(), self.destination);
        (client, accepted)
    }

    /// Who connects now is at nobody's.
    pub fn assert_not_redirected(&self) {
        let result = self.ground.within(&self.ground.app, || connect(self.destination));
        assert_eq!(result.err(), Some(nix::errno::Errno::ECONNREFUSED as i32));
    }

    /// Ids of the links on these cgroups, by the kernel's list of all.
    pub fn links(&self) -> Vec<u32> {
        self.ground.links()
    }

    pub fn assert_nothing_left(&self) {
        // Links whose last descriptor was a killed process's go a moment after it.
        until("no link to be left", || self.links().is_empty().then_some(()));
        assert!(!self.folder.exists(), "{:?}", listed(&self.folder));
        self.assert_not_redirected();
    }
}

impl Drop for Course {
    fn drop(&mut self) {
        if let Err(error) = umount2(&self.bpffs, MntFlags::MNT_DETACH) {
            eprintln!("cannot unmount: {error}");
        }
    }
}

/// Names of the files below a folder.
pub fn listed(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    entries.flat_map(|path| if path.is_dir() { listed(&path) } else { vec![path] }).collect()
}

/// A client that connects through the service as fast as it can.
pub struct Load {
    service: Serving,
    clients: Clients,
}

impl Load {
    /// Goes on until there have been that many more connections, and fails where one of them failed.
    pub fn more(&mut self, count: u64) {
        self.clients.more(count);
    }

    /// Ends it. How many connections there were, and how many the service has had.
    pub fn end(self) -> (u64, u64) {
        self.service.assert_right();
        (self.clients.end(), self.service.end())
    }
}
