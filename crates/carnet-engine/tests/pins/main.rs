//! Engines that are pinned, adopted and removed, and what is said where that is not possible. Needs root.
#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

mod inspect;
mod order;
mod place;

use std::fs::{self, Permissions};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::time::Duration;
use std::{env, process, thread};

use carnet_abi::{EVENT_CONNECT, RouteKey};
use carnet_engine::pin::{self, State};
use carnet_engine::{Engine, ErrorKind, EventReader, Options};
use carnet_policy::HostAction;
use libbpf_rs::{MapCore, MapFlags};
use nix::errno::Errno;
use zerocopy::{FromBytes, IntoBytes};

use crate::place::{Place, everything, names, on_cgroup, until, with_contexts};

#[test]
fn a_pinned_engine_goes_on_without_a_process_and_is_adopted() {
    let place = Place::new();
    let destination = place.server.local_addr().unwrap();
    let engine = place.pinned(HostAction::Block);
    let (id, generation) = (engine.id(), engine.generation().unwrap());
    assert_eq!((generation, engine.governed()), (1, place.cgroup.id()));
    let links = place.links();
    assert!(links.len() >= 12, "{links:?}");
    drop(engine);
    assert_eq!(place.links(), links, "pinned");
    assert_eq!(place.refused(destination), Some(Errno::EACCES as i32));

    let adopted = place.adopt();
    assert_eq!((adopted.engine.id(), adopted.engine.generation().unwrap()), (id, generation));
    assert_eq!(adopted.engine.governed(), place.cgroup.id());
    assert_eq!((adopted.found.engine, adopted.found.generation), (Some(id), Some(generation)));
    assert_eq!(adopted.found.links_by_cgroup(), [(place.cgroup.id(), links.len())].into());
    assert!(adopted.found.links.iter().all(|link| link.path.as_deref() == Some(place.cgroup.path())));
    assert!(adopted.changed.is_empty() && adopted.dropped.is_empty(), "it is the same build");
    assert_eq!(place.links(), links, "they are the same links");
    assert_eq!(place.refused(destination), Some(Errno::EACCES as i32));

    // It is in every way the engine that it was.
    let mut engine = adopted.engine;
    engine.apply(&everything(HostAction::Permit).compile(2).unwrap()).expect("apply");
    place.connect(destination).expect("permitted now");
    engine.rotate_key().expect("keys are known");
    assert_eq!(engine.generation().unwrap(), 2);
    engine.attach_governed(&place.cgroup).expect("what is attached stays");
    assert_eq!(place.links(), links);
    assert_eq!(engine.take_down().unwrap().links, links.len());
    assert_eq!((place.links(), place.folder.exists()), (Vec::new(), false));
}

#[test]
fn options_count_again_but_for_sizes_and_the_id() {
    let place = Place::new();
    let small = Options { handover_entries: 100, ..Options::default() };
    let mut engine = Engine::load(&place.cgroup, &small).expect("load");
    engine.pin(&place.folder).expect("pin");
    let id = engine.id();
    drop(engine);
    let other = Options { engine_id: Some(!id), refused_for: Duration::from_millis(7), ..Options::default() };
    let engine = Engine::adopt(&place.folder, &other).expect("adopt").expect("it was pinned").engine;
    assert_eq!(engine.id(), id);
    let config = engine.map_handle("carnet_config").unwrap().lookup(&[0; 4], MapFlags::ANY).unwrap().unwrap();
    let config = carnet_abi::Config::read_from_bytes(&config).unwrap();
    assert_eq!((config.refused_for, config.handover_share), (7_000_000, 25));
}

#[test]
fn what_is_attached_or_detached_later_is_pinned_or_not() {
    let place = Place::new();
    let child = place.cgroup.child("later").unwrap();
    let mut engine = place.pinned(HostAction::Block);
    let before = names(&place.folder.join("links"));
    engine.attach_services(&child).expect("attach");
    let options = on_cgroup(child.id()).len();
    assert!(options >= 2);
    assert_eq!(names(&place.folder.join("links")).len(), before.len() + options);
    drop(engine);
    assert_eq!(on_cgroup(child.id()).len(), options);

    let mut engine = place.adopt().engine;
    assert_eq!(engine.detach(child.id()).unwrap(), options);
    assert!(on_cgroup(child.id()).is_empty());
    assert_eq!(names(&place.folder.join("links")), before);
    assert_eq!(engine.detach(child.id()).unwrap(), 0);

    // A process that has ended while it attached: the next one goes on with the rest.
    drop(engine);
    let link = before.iter().find(|name| name.starts_with("carnet_connect6")).unwrap();
    fs::remove_file(place.folder.join("links").join(link)).unwrap();
    let mut engine = place.adopt().engine;
    assert_ne!(names(&place.folder.join("links")), before);
    engine.attach_governed(&place.cgroup).expect("attach");
    assert_eq!(names(&place.folder.join("links")), before);
}

#[test]
fn a_link_whose_cgroup_is_gone_is_told_and_dropped() {
    let place = Place::new();
    let child = place.cgroup.child("gone").unwrap();
    let mut engine = place.pinned(HostAction::Block);
    let before = names(&place.folder.join("links"));
    engine.attach_services(&child).expect("attach");
    let options = on_cgroup(child.id()).len();
    drop(engine);
    child.remove_tree(Duration::from_secs(5)).unwrap();
    // The kernel takes programs off a removed cgroup when it has the time.
    until(|| place.found().links_by_cgroup().len() == 1);

    let found = place.found();
    assert!(found.to_string().ends_with(&format!("{options} of cgroups that have been removed")), "{found}");
    let adopted = place.adopt();
    assert_eq!(adopted.dropped.len(), options);
    assert!(adopted.dropped.iter().all(|link| link.cgroup == child.id() && !link.is_attached), "{:?}", adopted.dropped);
    assert_eq!(names(&place.folder.join("links")), before);
}

#[test]
fn two_never_have_one_engine() {
    let place = Place::new();
    let engine = place.pinned(HostAction::Block);
    let links = place.links();
    let mine = ErrorKind::Held(Some(process::id()));
    for error in [
        Engine::adopt(&place.folder, &Options::default()).expect_err("held"),
        pin::remove(&place.folder).expect_err("held"),
        Engine::load(&place.cgroup, &Options::default()).unwrap().pin(&place.folder).expect_err("held"),
    ] {
        assert_eq!(*error.kind(), mine);
        let to_do = format!("kill -9 {}: what is in force stays", process::id());
        assert_one_line(&error, &[&to_do, place.folder.to_str().unwrap()]);
    }
    assert_eq!(place.found().held_by, Some(process::id()));
    assert_eq!(place.links(), links);
    drop(engine);
    assert_eq!(place.found().held_by, None);

    // Whole and nobody's: only who adopts or removes it may have it.
    let mut second = Engine::load(&place.cgroup, &Options::default()).unwrap();
    assert_one_line(&second.pin(&place.folder).expect_err("whole"), &["adopt"]);
    assert_eq!(place.links(), links);
    place.adopt();
}

#[test]
fn of_many_who_would_adopt_at_once_one_does() {
    let place = Place::new();
    drop(place.pinned(HostAction::Block));
    let folder = &place.folder;
    let results: Vec<_> = thread::scope(|scope| {
        let all: Vec<_> = (0..8).map(|_| scope.spawn(|| Engine::adopt(folder, &Options::default()))).collect();
        all.into_iter().map(|one| one.join().unwrap()).collect()
    });
    let (won, lost): (Vec<_>, Vec<_>) = results.into_iter().partition(Result::is_ok);
    assert_eq!((won.len(), lost.len()), (1, 7));
    assert!(lost.iter().all(|result| matches!(result.as_ref().unwrap_err().kind(), ErrorKind::Held(Some(_)))));
}

#[test]
fn half_an_engine_is_removed_and_never_adopted() {
    let place = Place::new();
    let half = |missing: &[&str]| {
        drop(place.pinned(HostAction::Block));
        fs::remove_file(place.folder.join("stamp")).unwrap();
        for part in missing {
            fs::remove_file(place.folder.join(part)).unwrap();
        }
        assert_eq!(pin::inspect(&place.folder).unwrap(), State::HalfMade { held_by: None });
        assert!(!place.links().is_empty());
    };
    half(&["maps/carnet_socks", "programs/carnet_connect4"]);
    assert!(Engine::adopt(&place.folder, &Options::default()).expect("no error").is_none());
    assert_eq!((place.links(), place.folder.exists()), (Vec::new(), false));

    half(&["maps/carnet_handovers"]);
    let removed = pin::remove(&place.folder).expect("remove").expect("there was something");
    assert!(removed.links > 0 && !removed.was_whole);
    assert_eq!((place.links(), place.folder.exists()), (Vec::new(), false));

    half(&[]);
    let before = place.links();
    let engine = place.pinned(HostAction::Permit);
    assert!(place.links().iter().all(|link| !before.contains(link)), "the old ones are gone");
    place.connect(place.server.local_addr().unwrap()).expect("the new engine's policy alone counts");
    drop(engine);
}

#[test]
fn removing_leaves_nothing_and_touches_nothing_else() {
    let place = Place::new();
    assert_eq!(pin::inspect(&place.folder).unwrap(), State::Absent);
    assert_eq!(pin::remove(&place.folder).unwrap(), None);
    let beside = place.bpffs.join("carnet_other");
    fs::create_dir(&beside).unwrap();
    // The kernel itself may have put something there.
    let before = names(&place.bpffs);
    place.foreign_map(&beside.join("somebodys"), "somebodys", 4);

    let engine = place.pinned(HostAction::Block);
    let count = place.links().len();
    // Others may have descriptors of them: a process that was forked, or somebody who looked.
    let _held: Vec<OwnedFd> = engine.link_fds().iter().map(|fd| fd.try_clone_to_owned().unwrap()).collect();
    drop(engine);
    let removed = pin::remove(&place.folder).unwrap().expect("it was there");
    assert_eq!((removed.links, removed.was_whole), (count, true));
    assert_eq!(names(&place.bpffs), before);
    assert_eq!(names(&beside), ["somebodys"]);
    assert_eq!(place.links(), []);
    place.connect(place.server.local_addr().unwrap()).expect("nobody blocks");
    assert_eq!(pin::remove(&place.folder).unwrap(), None);

    // Another program's folder is not taken for half of an engine.
    fs::set_permissions(&beside, Permissions::from_mode(0o700)).unwrap();
    for path in [&beside, &place.bpffs] {
        assert_one_line(&pin::remove(path).expect_err("not ours"), &[]);
    }
    assert_one_line(&place.load().pin(&beside).expect_err("not ours"), &["somebodys"]);
    assert_eq!(names(&beside), ["somebodys"]);
}

#[test]
fn maps_of_another_layout_are_refused_by_name_and_nothing_changes() {
    let place = Place::new();
    drop(place.pinned(HostAction::Block));
    let refused = || {
        let before = (place.links(), names(&place.folder.join("maps")), place.programs());
        let error = Engine::adopt(&place.folder, &Options::default()).expect_err("another layout");
        assert_eq!((place.links(), names(&place.folder.join("maps")), place.programs()), before);
        assert_one_line(&error, &["carnet down", "Nothing was changed"]);
        assert_eq!(place.refused(place.server.local_addr().unwrap()), Some(Errno::EACCES as i32));
        error
    };
    let stamp = place.folder.join("stamp");
    let text = fs::read_link(&stamp).unwrap().into_os_string().into_string().unwrap();
    let restamp = |text: &str| {
        fs::remove_file(&stamp).unwrap();
        symlink(text, &stamp).unwrap();
    };
    let of_socks = text.split(' ').find(|word| word.starts_with("carnet_socks=")).unwrap();

    restamp(&text.replace(of_socks, "carnet_socks=0123456789abcdef"));
    assert_eq!(*refused().kind(), ErrorKind::Incompatible(Some("carnet_socks".into())));
    restamp(&text.replace(of_socks, ""));
    assert_eq!(*refused().kind(), ErrorKind::Incompatible(Some("carnet_socks".into())));
    for version in ["abi=", "image="] {
        restamp(&text.replace(&format!("{version}1"), &format!("{version}65000")));
        let error = refused();
        assert_eq!(*error.kind(), ErrorKind::Incompatible(None));
        assert_one_line(&error, &["65000"]);
    }
    restamp("from another world");
    assert_eq!(*refused().kind(), ErrorKind::Incompatible(None));
    restamp(&text);

    // The kernel's word counts too.
    let refusals = place.folder.join("maps/carnet_refused");
    let kept = place.folder.join("maps/carnet_kept");
    fs::rename(&refusals, &kept).unwrap();
    assert_eq!(*refused().kind(), ErrorKind::Incompatible(Some("carnet_refused".into())));
    place.foreign_map(&refusals, "carnet_refused", 24);
    let error = refused();
    assert_eq!(*error.kind(), ErrorKind::Incompatible(Some("carnet_refused".into())));
    fs::rename(&kept, &refusals).unwrap();
    assert!(place.adopt().changed.is_empty(), "as it was, it is taken");

    // Whatever it is, it can be removed.
    restamp("from another world");
    assert!(pin::remove(&place.folder).unwrap().expect("it was there").was_whole);
    assert_eq!(place.links(), []);
}

#[test]
fn the_folder_is_its_owners_alone() {
    let place = Place::new();
    drop(place.pinned(HostAction::Block));
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    for folder in ["", "maps", "programs", "links"] {
        assert_eq!(mode(&place.folder.join(folder)), 0o700, "{folder}");
    }
    assert!(names(&place.folder.join("maps")).iter().all(|map| mode(&place.folder.join("maps").join(map)) == 0o600));

    // In a bpf file system that everybody may write to, somebody could have made it.
    fs::set_permissions(&place.folder, Permissions::from_mode(0o770)).unwrap();
    assert_one_line(&Engine::adopt(&place.folder, &Options::default()).expect_err("not safe"), &["mode 770"]);
    fs::set_permissions(&place.folder, Permissions::from_mode(0o700)).unwrap();
    nix::unistd::chown(&place.folder, Some(1000.into()), None).unwrap();
    assert_one_line(&Engine::adopt(&place.folder, &Options::default()).expect_err("not ours"), &["uid 1000"]);
    nix::unistd::chown(&place.folder, Some(0.into()), None).unwrap();
    let link = place.bpffs.join("led_astray");
    symlink(&place.folder, &link).unwrap();
    assert_one_line(&pin::remove(&link).expect_err("a link"), &[]);
    place.adopt();
}

#[test]
fn a_bad_place_is_told_with_what_to_do() {
    let place = Place::new();
    let mut engine = place.load();
    for folder in [&env::temp_dir().join("carnet"), Path::new("/nowhere/carnet")] {
        let error = engine.pin(folder).expect_err("no bpf file system");
        assert_eq!(*error.kind(), ErrorKind::NoBpffs);
        assert_one_line(&error, &["mount -t bpf", folder.parent().unwrap().to_str().unwrap()]);
        assert_eq!(*Engine::adopt(folder, &Options::default()).err().unwrap().kind(), ErrorKind::NoBpffs);
        assert_eq!(*pin::inspect(folder).unwrap_err().kind(), ErrorKind::NoBpffs);
    }
    assert_one_line(&engine.pin(&place.bpffs.join("car.net")).expect_err("a dot"), &["dot"]);
    assert_one_line(&engine.pin(Path::new("carnet")).expect_err("relative"), &["absolute"]);
    assert_eq!(engine.pinned_at(), None);
    engine.pin(&place.folder).expect("after all");
    assert_eq!(engine.pinned_at(), Some(&*place.folder));
    assert_one_line(&engine.pin(&place.folder).expect_err("twice"), &["already"]);
    assert!(pin::mount_point().unwrap().exists());
}

#[test]
fn the_reader_goes_on_where_the_one_before_ended() {
    let place = Place::new();
    let engine = place.pinned(HostAction::Block);
    let ports: Vec<_> = (0..3).map(|_| TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()).collect();
    let mut reader = engine.events().unwrap();
    place.refused(ports[0]);
    assert_eq!(connects(&mut reader), [ports[0]]);
    drop(reader);
    drop(engine);
    place.refused(ports[1]);
    let adopted = place.adopt();
    place.refused(ports[2]);
    assert_eq!(connects(&mut adopted.engine.events().unwrap()), ports[1..]);
}

#[test]
fn contexts_of_old_policies_make_room_after_adoption_too() {
    let place = Place::new();
    let mut engine = place.pinned(HostAction::Block);
    for generation in 2..12 {
        if generation % 3 == 0 {
            drop(engine);
            engine = place.adopt().engine;
            assert_eq!(engine.generation().unwrap(), generation - 1);
        }
        engine.apply(&with_contexts(7).compile(generation).unwrap()).expect("there is room");
        let contexts = engine.map_handle("carnet_contexts").unwrap().keys().count();
        assert_eq!(contexts, if generation == 2 { 7 } else { 14 }, "those of two policies, at {generation}");
    }
}

/// Routes may go while there is no process that follows them.
#[test]
fn routes_that_went_meanwhile_are_forgotten() {
    let place = Place::new();
    let engine = place.pinned(HostAction::Permit);
    drop(engine.routes().unwrap().watch(|_| {}).unwrap());
    let slot = |engine: &Engine| {
        let routing = engine.map_handle("carnet_routing").unwrap().lookup(&[0; 4], MapFlags::ANY).unwrap().unwrap();
        carnet_abi::Routing::read_from_bytes(&routing).unwrap()
    };
    let key = |slot| {
        let prefix = Ipv4Addr::new(203, 0, 113, 0).to_ipv6_mapped().octets();
        RouteKey { prefix_len: 32 + 96 + 24, slot, prefix }
    };
    let routes = engine.map_handle("carnet_routes").unwrap();
    for slot in [0, 1] {
        let errno = (Errno::ENETUNREACH as u32).to_ne_bytes();
        routes.update(key(slot).as_bytes(), &errno, MapFlags::ANY).unwrap();
    }
    drop(engine);

    let engine = place.adopt().engine;
    let _watch = engine.routes().unwrap().watch(|_| {}).unwrap();
    let now = slot(&engine);
    assert_ne!(now.netns, 0, "in force");
    let there = |slot| routes.keys().any(|there| there == key(slot).as_bytes());
    assert!(!there(now.slot), "it is not a route of this host's");
}

/// Where to, of all decisions until now.
fn connects(reader: &mut EventReader) -> Vec<SocketAddr> {
    let mut seen = Vec::new();
    while reader.poll(Duration::ZERO, &mut |event| seen.push(*event)).unwrap() > 0 {}
    seen.iter().filter(|event| event.kind == EVENT_CONNECT).map(|event| event.remote.to_socket_addr()).collect()
}

/// What every message is, and what this one has to have in it.
fn assert_one_line(error: &carnet_engine::Error, says: &[&str]) {
    let text = error.to_string();
    assert!(!text.contains('\n') && !text.contains("  "), "{text}");
    assert!(says.iter().all(|word| text.contains(word)), "{says:?}: {text}");
}
