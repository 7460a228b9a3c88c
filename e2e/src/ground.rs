use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use carnet_engine::cgroup::{Cgroup, Hierarchy};
use libbpf_rs::query::{LinkInfoIter, LinkTypeInfo};

/// The cgroups of a sandbox, before an engine is there: `carnet-test.<pid>.<n>/{app,services}`. Removed when dropped.
///
/// A test that has two engines, or attaches programs of its own before Carnet's, makes this first.
#[derive(Debug)]
pub struct Ground {
    /// Where cgroup2 is mounted.
    pub hierarchy: Hierarchy,
    /// What the engine is to govern.
    pub governed: Cgroup,
    /// The application's.
    pub app: Cgroup,
    /// The services'.
    pub services: Cgroup,
    /// Where the test process was.
    home: PathBuf,
    /// What is removed at the end: all that was made for this.
    top: Cgroup,
    _turn: Option<MutexGuard<'static, ()>>,
}

/// Tests move their process between cgroups, so those of one process take turns.
static TURN: Mutex<()> = Mutex::new(());
static COUNT: AtomicU32 = AtomicU32::new(0);

impl Default for Ground {
    fn default() -> Self {
        Self::new()
    }
}

impl Ground {
    /// Below the hierarchy's root. Fails, loudly, without root. The calling test has its turn until this is dropped.
    pub fn new() -> Self {
        let (turn, hierarchy, top) = claim();
        let governed = Cgroup::open(&hierarchy, top.path()).expect("it was just made");
        Self::of(hierarchy, governed, top, Some(turn))
    }

    /// The same with a cgroup above the governed one, of which no engine knows.
    pub fn with_ancestor() -> Self {
        let (turn, hierarchy, top) = claim();
        let governed = top.child("governed").expect("a cgroup of our own");
        Self::of(hierarchy, governed, top, Some(turn))
    }

    /// Inside a cgroup of another ground's, such as its application's. That one outlives this one.
    pub fn inside(outer: &Cgroup) -> Self {
        let hierarchy = Hierarchy::find().expect("a cgroup2 hierarchy");
        let top = outer.child(&name()).expect("a cgroup of our own");
        let governed = Cgroup::open(&hierarchy, top.path()).expect("it was just made");
        Self::of(hierarchy, governed, top, None)
    }

    /// For a second engine that governs the very same cgroup. Its services are elsewhere, and not governed by the other.
    pub fn beside(other: &Self) -> Self {
        let top = Cgroup::create(&other.hierarchy, &name()).expect("a cgroup of our own");
        Self::sharing(other, top)
    }

    /// The same, but its services are below that cgroup, as the other one's are.
    pub fn amid(other: &Self) -> Self {
        Self::sharing(other, other.governed.child(&name()).expect("a cgroup of our own"))
    }

    /// The cgroup above the governed one.
    pub fn ancestor(&self) -> Cgroup {
        let path = self.governed.path().parent().expect("it is not the root");
        Cgroup::open(&self.hierarchy, path).expect("it is there")
    }

    /// That of the service with this index: made, unless the test has done so to put something into it.
    pub fn service(&self, index: usize) -> Cgroup {
        let name = index.to_string();
        let path = self.services.path().join(&name);
        let made = if path.exists() { Cgroup::open(&self.hierarchy, &path) } else { self.services.child(&name) };
        made.expect("a service's cgroup")
    }

    /// Whether attaching to the governed cgroup reaches the services too.
    pub fn governs_services(&self) -> bool {
        self.services.path().starts_with(self.governed.path())
    }

    /// Does something as a process of this cgroup.
    pub fn within<T>(&self, cgroup: &Cgroup, act: impl FnOnce() -> T) -> T {
        cgroup.add_self().expect("the test process can be moved");
        let back = Back(&self.home);
        let result = act();
        drop(back);
        result
    }

    /// Ids of the links on these cgroups and all others of this ground, by the kernel's list of all.
    pub fn links(&self) -> Vec<u32> {
        let mut ours = BTreeSet::new();
        let mut folders = vec![self.top.path().to_owned()];
        while let Some(folder) = folders.pop() {
            ours.extend(fs::metadata(&folder).map(|there| there.ino()));
            let inside = fs::read_dir(&folder).into_iter().flatten().flatten();
            folders.extend(inside.map(|entry| entry.path()).filter(|path| path.is_dir()));
        }
        let is_ours = |info: &LinkTypeInfo| matches!(info, LinkTypeInfo::Cgroup(on) if ours.contains(&on.cgroup_id));
        let links = LinkInfoIter::default().filter(|link| is_ours(&link.info)).map(|link| link.id);
        BTreeSet::from_iter(links).into_iter().collect()
    }

    fn sharing(other: &Self, top: Cgroup) -> Self {
        let again = |cgroup: &Cgroup| Cgroup::open(&other.hierarchy, cgroup.path()).expect("it is there");
        Self {
            hierarchy: other.hierarchy.clone(),
            governed: again(&other.governed),
            app: again(&other.app),
            services: top.child("services").expect("services"),
            home: other.home.clone(),
            top,
            _turn: None,
        }
    }

    fn of(hierarchy: Hierarchy, governed: Cgroup, top: Cgroup, turn: Option<MutexGuard<'static, ()>>) -> Self {
        let app = governed.child("app").expect("app");
        let services = governed.child("services").expect("services");
        Self { home: home(&hierarchy), hierarchy, governed, app, services, top, _turn: turn }
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        if let Err(error) = self.top.remove_tree(Duration::from_secs(10)) {
            eprintln!("{error}");
        }
    }
}

/// Moves the process back where it was, also when the test panics: its sandbox could not be removed otherwise.
struct Back<'a>(&'a PathBuf);

impl Drop for Back<'_> {
    fn drop(&mut self) {
        fs::write(self.0.join("cgroup.procs"), std::process::id().to_string())
            .expect("the test process can be moved back");
    }
}

/// The cgroup of the calling process.
fn home(hierarchy: &Hierarchy) -> PathBuf {
    let own = fs::read_to_string("/proc/self/cgroup").expect("/proc is mounted");
    let path = own.lines().find_map(|line| line.strip_prefix("0::/")).expect("cgroup2 is mounted");
    hierarchy.mount().join(path)
}

/// The test's turn, and a new cgroup at the top.
fn claim() -> (MutexGuard<'static, ()>, Hierarchy, Cgroup) {
    let turn = TURN.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    assert!(nix::unistd::Uid::effective().is_root(), "end-to-end tests need root: run them with sudo, or make test");
    let hierarchy = Hierarchy::find().expect("a cgroup2 hierarchy");
    let top = Cgroup::create(&hierarchy, &name()).expect("a cgroup of our own");
    (turn, hierarchy, top)
}

fn name() -> String {
    format!("carnet-test.{}.{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}
