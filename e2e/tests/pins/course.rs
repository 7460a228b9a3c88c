//! A governed cgroup with a service, a bpf file system of the test's own, and a load.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;
use std::{fs, io};

use carnet::Redirect;
use carnet_e2e::programs::Scratch;
use carnet_e2e::sockets::{accept, connect, listen, until};
use carnet_e2e::{Ground, Running, enter};
use carnet_engine::cgroup::Cgroup;
use libbpf_rs::query::{LinkInfoIter, LinkTypeInfo};
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
        Load { service: Serving::at(&self.listener, self.destination), client: Running::start(&mut client) }
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
        let ours = [self.ground.governed.id(), self.service.id()];
        let is_ours = |info: &LinkTypeInfo| matches!(info, LinkTypeInfo::Cgroup(on) if ours.contains(&on.cgroup_id));
        let mut links: Vec<_> =
            LinkInfoIter::default().filter(|link| is_ours(&link.info)).map(|link| link.id).collect();
        links.sort_unstable();
        links
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
    client: Running,
}

impl Load {
    /// Goes on until there have been that many more connections, and fails where one of them failed.
    pub fn more(&mut self, count: u64) {
        let before = self.good();
        until("more connections", || (self.good() >= before + count).then_some(()));
    }

    /// Ends it. How many connections there were, and how many the service has had.
    pub fn end(mut self) -> (u64, u64) {
        let good = self.good();
        self.client.kill();
        (good, self.service.end())
    }

    fn good(&mut self) -> u64 {
        self.client.go_on();
        let line = self.client.line();
        let words: Vec<_> = line.splitn(3, ' ').collect();
        assert_eq!(
            words[1],
            "0",
            "connections failed: {line}; those that the service knew nothing of: {}",
            self.service.unknown()
        );
        words[0].parse().expect("a number")
    }
}

/// Accepts, asks where to, and answers.
struct Serving {
    tally: Arc<Tally>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Tally {
    known: AtomicU64,
    unknown: AtomicU64,
    is_over: AtomicBool,
}

impl Serving {
    fn at(listener: &TcpListener, destination: SocketAddr) -> Self {
        let tally = Arc::new(Tally::default());
        let (listener, shared) = (listener.try_clone().unwrap(), Arc::clone(&tally));
        let thread = thread::spawn(move || {
            while !shared.is_over.load(Ordering::Relaxed) {
                match listener.accept() {
                    Ok((accepted, _)) => shared.answer(&accepted, destination),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        thread::sleep(Duration::from_micros(200));
                    }
                    Err(error) => panic!("accept: {error}"),
                }
            }
        });
        Self { tally, thread: Some(thread) }
    }

    fn unknown(&self) -> u64 {
        self.tally.unknown.load(Ordering::Relaxed)
    }

    /// How many connections it has had, all of them with their destination.
    fn end(mut self) -> u64 {
        self.stop();
        assert_eq!(self.unknown(), 0);
        self.tally.known.load(Ordering::Relaxed)
    }

    fn stop(&mut self) {
        self.tally.is_over.store(true, Ordering::Relaxed);
        self.thread.take().map(JoinHandle::join);
    }
}

impl Tally {
    fn answer(&self, mut accepted: &TcpStream, destination: SocketAddr) {
        let flow = Redirect::of(accepted).flow();
        let is_known = flow.is_ok_and(|flow| flow.destination() == destination);
        let count = if is_known { &self.known } else { &self.unknown };
        count.fetch_add(1, Ordering::Relaxed);
        // The client may have been killed.
        let _ = io::Write::write_all(&mut accepted, if is_known { b"y" } else { b"n" });
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.stop();
    }
}
