//! Loading, attaching, applying and letting go, and what is said where that is not possible. Needs root.
#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;
use std::{fs, io, process, thread};

use carnet_engine::cgroup::{Cgroup, Hierarchy};
use carnet_engine::{Engine, ErrorKind, Options, netns_cookie};
use carnet_policy::{
    Action, Filter, HostAction, Image, Match, OnDead, Owner, Policy, Provider, Reach, Service, SockName,
};
use libbpf_rs::MapCore;
use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{Uid, seteuid};

#[test]
fn programs_stay_while_somebody_holds_their_links() {
    let place = Place::new("links");
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let destination = server.local_addr().unwrap();
    let mut engine = Engine::load(&place.cgroup, &Options::default()).expect("the engine loads");
    engine.apply(&block_all().compile(1).unwrap()).expect("apply");
    place.connect(destination).expect("not attached yet");

    engine.attach_services(&place.cgroup).expect("attach");
    engine.attach_governed(&place.cgroup).expect("attach");
    let refused = || place.connect(destination).expect_err("blocked").raw_os_error();
    assert_eq!(refused(), Some(Errno::EACCES as i32));

    let held: Vec<OwnedFd> = engine.link_fds().iter().map(|fd| fd.try_clone_to_owned().expect("dup")).collect();
    drop(engine);
    assert_eq!(refused(), Some(Errno::EACCES as i32), "somebody holds the links");
    drop(held);
    place.connect(destination).expect("nobody does");
}

#[test]
fn a_policy_is_swapped_in_as_a_whole() {
    let place = Place::new("swap");
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let destination = server.local_addr().unwrap();
    let mut engine = Engine::load(&place.cgroup, &Options::default()).expect("the engine loads");
    engine.attach_governed(&place.cgroup).expect("attach");
    for generation in 1..20 {
        let mut policy = block_all();
        if generation % 2 == 0 {
            policy.default = HostAction::Permit;
        }
        engine.apply(&policy.compile(generation).unwrap()).expect("apply");
        assert_eq!(place.connect(destination).is_ok(), generation % 2 == 0);
    }
}

#[test]
fn contexts_of_old_policies_make_room() {
    let place = Place::new("contexts");
    let mut engine = Engine::load(&place.cgroup, &Options::default()).expect("the engine loads");
    for generation in 1..400 {
        engine.apply(&with_contexts(7).compile(generation).unwrap()).expect("there is room");
    }
    let contexts = || engine.map_handle("carnet_contexts").unwrap().keys().count();
    assert_eq!(contexts(), 14, "those of the policy in force and of the one before");
}

/// It fails when some of its contexts have been written: there is no room for all of them.
#[test]
fn after_a_policy_that_does_not_fit_the_one_before_is_in_force_and_the_next_one_is_taken() {
    let place = Place::new("full");
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut engine = Engine::load(&place.cgroup, &Options::default()).expect("the engine loads");
    engine.attach_governed(&place.cgroup).expect("attach");
    engine.apply(&block_all().compile(1).unwrap()).expect("apply");
    let why = || place.connect(server.local_addr().unwrap()).expect_err("refused").kind();
    let mut too_many = with_contexts(7).compile(2).unwrap();
    let context = too_many.contexts[0].1;
    too_many.contexts.extend((0..9000).map(|at| (1 << 31 | at, context)));
    for _ in 0..2 {
        let error = engine.apply(&too_many).expect_err("there is no room");
        assert_one_line(&error, &["carnet_contexts"]);
        assert_eq!(why(), io::ErrorKind::PermissionDenied, "the old policy, which blocks, is in force");
    }
    engine.apply(&with_contexts(7).compile(3).unwrap()).expect("there is room");
    assert_eq!(why(), io::ErrorKind::ConnectionRefused, "the new policy is in force, and its service is dead");
    engine.apply(&with_contexts(7).compile(4).unwrap()).expect("there is room");
    assert_eq!(engine.map_handle("carnet_contexts").unwrap().keys().count(), 14, "what was half written has gone");
}

#[test]
fn an_owner_too_deep_is_refused_and_the_policy_stays() {
    let place = Place::new("deep");
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut engine = Engine::load(&place.cgroup, &Options::default()).expect("the engine loads");
    engine.attach_governed(&place.cgroup).expect("attach");
    engine.apply(&block_all().compile(1).unwrap()).expect("apply");
    let mut deep = with_contexts(1);
    deep.providers[0].owners = vec![Owner::Cgroup { id: 77, level: 12 }];
    let error = engine.apply(&deep.compile(2).unwrap()).expect_err("too deep");
    assert_eq!(*error.kind(), ErrorKind::Policy);
    assert_one_line(&error, &["12 levels"]);
    place.connect(server.local_addr().unwrap()).expect_err("the old policy is in force");
}

/// Its contexts would take the place of those that flows still have, under the same keys.
#[test]
fn two_policies_after_each_other_have_two_generations() {
    let place = Place::new("generation");
    let mut engine = Engine::load(&place.cgroup, &Options::default()).expect("the engine loads");
    let mut apply = |generation| {
        let applied = engine.apply(&with_contexts(1).compile(generation).unwrap());
        (applied, engine.generation().unwrap())
    };
    assert!(matches!(apply(5), (Ok(()), 5)));
    for (generation, says) in [(5, "5"), (0, "0"), (5 + Image::GENERATIONS, "count it up")] {
        let (applied, in_force) = apply(generation);
        let error = applied.expect_err("contexts know no difference");
        assert_eq!((error.kind(), in_force), (&ErrorKind::Policy, 5));
        assert_one_line(&error, &["generation", says]);
    }
    assert!(matches!(apply(6), (Ok(()), 6)));
    assert!(matches!(apply(5), (Ok(()), 5)), "it was not in force any more");
}

#[test]
fn a_network_namespace_has_the_cookie_that_records_say() {
    let place = Place::new("netns");
    let mut engine = Engine::load(&place.cgroup, &Options::default()).expect("the engine loads");
    engine.attach_governed(&place.cgroup).expect("attach");
    engine.apply(&block_all().compile(1).unwrap()).expect("apply");
    let mut events = engine.events().expect("events");
    let mut connected = || {
        place.connect(([127, 0, 0, 1], 9).into()).expect_err("blocked");
        let mut cookies = Vec::new();
        events.poll(Duration::from_secs(5), &mut |event| cookies.push(event.record.origin.netns_cookie)).unwrap();
        assert_eq!(cookies.len(), 1);
        cookies[0]
    };
    let here = connected();
    assert_eq!(netns_cookie(Path::new("/proc/self/ns/net")).unwrap(), here);
    thread::scope(|scope| {
        let there = scope.spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace; this test needs root");
            let path = fs::canonicalize("/proc/thread-self").expect("/proc is mounted").join("ns/net");
            let cookie = netns_cookie(&path).unwrap();
            assert_eq!(cookie, connected(), "{}", path.display());
            assert_eq!(netns_cookie(Path::new("/proc/self/ns/net")).unwrap(), here, "the process is where it was");
            cookie
        });
        assert_ne!(there.join().expect("the thread"), here);
    });
}

#[test]
fn what_is_no_network_namespace_has_no_cookie() {
    let error = netns_cookie(Path::new("/run/netns/carnet-none")).expect_err("it is not there");
    assert_eq!(error.kind(), io::ErrorKind::NotFound);
    let error = netns_cookie(Path::new("/proc/self/ns/uts")).expect_err("of another kind");
    assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    assert!(error.to_string().contains("/proc/self/ns/uts"), "{error}");
}

#[test]
fn without_privilege_it_says_so() {
    let place = Place::new("nobody");
    seteuid(Uid::from_raw(65534)).expect("root may");
    let result = Engine::load(&place.cgroup, &Options::default());
    seteuid(Uid::from_raw(0)).expect("root may");
    let error = result.err().expect("nobody may not load programs");
    assert_eq!(*error.kind(), ErrorKind::NoPrivilege);
    assert_one_line(&error, &["root"]);
}

#[test]
fn sizes_are_rounded_up_or_refused() {
    let place = Place::new("sizes");
    let odd = Options { event_bytes: 5000, ..Options::default() };
    let engine = Engine::load(&place.cgroup, &odd).expect("the loader rounds up");
    assert!(engine.map_handle("carnet_events").unwrap().max_entries() >= 5000);
    let none = Options { handover_entries: 0, ..Options::default() };
    let error = Engine::load(&place.cgroup, &none).err().expect("nothing could be handed over");
    assert_one_line(&error, &[]);
}

#[test]
fn a_cgroup_elsewhere_is_not_one() {
    let _alone = alone();
    let hierarchy = Hierarchy::find().expect("a cgroup2 hierarchy");
    let error = Cgroup::open(&hierarchy, &PathBuf::from("/proc")).expect_err("not below the mount");
    assert_eq!(*error.kind(), ErrorKind::NoCgroup("/proc".into()));
    assert_one_line(&error, &["/proc"]);
}

/// A cgroup of the test's own. The process is moved there and back, so tests take turns.
struct Place {
    cgroup: Cgroup,
    home: PathBuf,
    _alone: MutexGuard<'static, ()>,
}

fn alone() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

impl Place {
    fn new(name: &str) -> Self {
        let alone = alone();
        let hierarchy = Hierarchy::find().expect("a cgroup2 hierarchy");
        let name = format!("carnet-loading.{}.{name}", process::id());
        let cgroup = Cgroup::create(&hierarchy, &name).expect("a cgroup; this test needs root");
        let own = fs::read_to_string("/proc/self/cgroup").expect("/proc is mounted");
        let home = own.lines().find_map(|line| line.strip_prefix("0::/")).expect("cgroup2 is mounted");
        Self { cgroup, home: hierarchy.mount().join(home), _alone: alone }
    }

    fn connect(&self, to: SocketAddr) -> io::Result<TcpStream> {
        self.cgroup.add_self().expect("the test process can be moved");
        let result = TcpStream::connect(to);
        self.leave();
        result
    }

    fn leave(&self) {
        fs::write(self.home.join("cgroup.procs"), process::id().to_string()).expect("the test process can be moved");
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Err(error) = self.cgroup.remove_tree(Duration::from_secs(5)) {
            eprintln!("{error}");
        }
    }
}

fn block_all() -> Policy {
    Policy { default: HostAction::Block, ..Policy::default() }
}

fn with_contexts(count: u8) -> Policy {
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

fn assert_one_line(error: &carnet_engine::Error, says: &[&str]) {
    let text = error.to_string();
    assert!(!text.contains('\n'), "{text}");
    assert!(says.iter().all(|word| text.contains(word)), "{text}");
}
