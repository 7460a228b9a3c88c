//! What a test stands on: a cgroup and a bpf file system of its own.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};
use std::{env, fs, io, process, thread};

use carnet_engine::cgroup::{Cgroup, Hierarchy};
use carnet_engine::pin::{self, Adopted, Found, State};
use carnet_engine::{Engine, Options};
use carnet_policy::{Action, Filter, HostAction, Match, OnDead, Owner, Policy, Provider, Reach, Service, SockName};
use libbpf_rs::query::{LinkInfoIter, LinkTypeInfo};
use libbpf_rs::{MapHandle, MapType};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};

/// A cgroup and a bpf file system of the test's own. The process is moved there and back, so tests take turns.
pub struct Place {
    pub cgroup: Cgroup,
    home: PathBuf,
    pub bpffs: PathBuf,
    pub folder: PathBuf,
    pub server: TcpListener,
    _turn: MutexGuard<'static, u32>,
}

impl Place {
    pub fn new() -> Self {
        static TURN: Mutex<u32> = Mutex::new(0);
        let mut turn = TURN.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        *turn += 1;
        let name = format!("carnet-pins.{}.{turn}", process::id());
        // Nobody else sees what is mounted here, and all of it is gone with this thread at the latest.
        unshare(CloneFlags::CLONE_NEWNS).expect("a mount namespace; this test needs root");
        let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        mount(None::<&str>, "/", None::<&str>, private, None::<&str>).expect("private mounts");
        let bpffs = env::temp_dir().join(&name);
        fs::create_dir(&bpffs).unwrap();
        mount(Some("bpf"), &bpffs, Some("bpf"), MsFlags::empty(), None::<&str>).expect("a bpf file system");

        let hierarchy = Hierarchy::find().expect("a cgroup2 hierarchy");
        let cgroup = Cgroup::create(&hierarchy, &name).expect("a cgroup");
        let own = fs::read_to_string("/proc/self/cgroup").expect("/proc is mounted");
        let home = own.lines().find_map(|line| line.strip_prefix("0::/")).expect("cgroup2 is mounted");
        let home = hierarchy.mount().join(home);
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        Self { cgroup, home, folder: bpffs.join("carnet"), bpffs, server, _turn: turn }
    }

    pub fn load(&self) -> Engine {
        Engine::load(&self.cgroup, &Options::default()).expect("the engine loads")
    }

    /// An engine with a policy of its own, attached and pinned.
    pub fn pinned(&self, default: HostAction) -> Engine {
        let mut engine = self.load();
        engine.apply(&everything(default).compile(1).unwrap()).expect("apply");
        engine.attach_services(&self.cgroup).expect("attach");
        engine.attach_governed(&self.cgroup).expect("attach");
        engine.pin(&self.folder).expect("pin");
        engine
    }

    pub fn adopt(&self) -> Adopted {
        Engine::adopt(&self.folder, &Options::default()).expect("adopt").expect("an engine is pinned")
    }

    pub fn found(&self) -> Found {
        match pin::inspect(&self.folder).unwrap() {
            State::Whole(found) => found,
            other => panic!("{other:?}"),
        }
    }

    pub fn links(&self) -> Vec<u32> {
        on_cgroup(self.cgroup.id())
    }

    /// Ids of the programs that are attached.
    pub fn programs(&self) -> Vec<u32> {
        let ours = self.links();
        LinkInfoIter::default().filter(|link| ours.contains(&link.id)).map(|link| link.prog_id).collect()
    }

    /// Somebody's map, pinned.
    pub fn foreign_map(&self, at: &Path, name: &str, value: u32) {
        let options = libbpf_rs::libbpf_sys::bpf_map_create_opts {
            sz: size_of::<libbpf_rs::libbpf_sys::bpf_map_create_opts>() as u64,
            ..Default::default()
        };
        let mut map = MapHandle::create(MapType::LruHash, Some(name), 32, value, 16384, &options).unwrap();
        map.pin(at).unwrap();
    }

    pub fn refused(&self, to: SocketAddr) -> Option<i32> {
        self.connect(to).expect_err("blocked").raw_os_error()
    }

    pub fn connect(&self, to: SocketAddr) -> io::Result<TcpStream> {
        self.cgroup.add_self().expect("the test process can be moved");
        let result = TcpStream::connect(to);
        fs::write(self.home.join("cgroup.procs"), process::id().to_string()).expect("it can be moved back");
        result
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let gone = umount2(&self.bpffs, MntFlags::MNT_DETACH).map_err(io::Error::from);
        let gone = gone.and_then(|()| fs::remove_dir(&self.bpffs));
        let empty = self.cgroup.remove_tree(Duration::from_secs(5));
        if gone.is_err() || empty.is_err() {
            eprintln!("{gone:?} {empty:?}");
        }
    }
}

/// Ids of the links on a cgroup, by the kernel's list of all.
pub fn on_cgroup(id: u64) -> Vec<u32> {
    let is_there = |info: &LinkTypeInfo| matches!(info, LinkTypeInfo::Cgroup(on) if on.cgroup_id == id);
    let mut ids: Vec<_> = LinkInfoIter::default().filter(|link| is_there(&link.info)).map(|link| link.id).collect();
    ids.sort_unstable();
    ids
}

pub fn everything(default: HostAction) -> Policy {
    Policy { default, ..Policy::default() }
}

pub fn with_contexts(count: u8) -> Policy {
    let filter = |context| Filter {
        name: "some".into(),
        weight: 1,
        matches: Match::default(),
        action: Action::Redirect { context: vec![context] },
    };
    let provider = Provider {
        name: "one".into(),
        handle: 1,
        rank: 10,
        service: Service::Aware,
        on_dead: OnDead::Closed,
        direct: false,
        owners: vec![Owner::Uid(60_000)],
        listeners: vec![([127, 0, 0, 1], 9).into()],
        in_flight_limit: 0,
        reach: Reach::Routes,
        sockname: SockName::Own,
        filters: (0..count).map(filter).collect(),
    };
    Policy { providers: vec![provider], ..Policy::default() }
}

pub fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort_unstable();
    names
}

pub fn until(mut is_so: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(30);
    while !is_so() {
        assert!(Instant::now() < end, "it did not come to that");
        thread::sleep(Duration::from_millis(5));
    }
}
