//! Processes that are killed while they have an engine, or while they pin it.

use std::process::Command;

use carnet::Redirect;
use carnet_e2e::Running;
use carnet_e2e::sockets::{assert_joined, until};
use carnet_engine::pin::{self, State};
use carnet_engine::{Engine, Options};

use crate::course::{Course, listed};

/// `kill -9` of the daemon and its restart, three times, under connections at full speed. Whoever is not redirected is
/// refused, and whoever is redirected by half is not answered.
#[test]
fn killed_under_load_and_adopted_no_connection_fails_and_none_passes_by() {
    let course = Course::new();
    let mut daemon = course.pinned("pinned");
    let links = course.links();
    let (mut client, mut accepted) = course.flow();
    let before = Redirect::of(&accepted).flow().unwrap().id();
    let mut load = course.load();
    for _ in 0..3 {
        load.more(300);
        daemon.kill();
        load.more(300);
        daemon = adopts(&course);
        load.more(300);
    }
    let (answered, served) = load.end();
    assert!(answered >= 2700 && served >= answered, "{answered} answered, {served} served");
    assert_eq!(course.links(), links, "they are the same links all the time");

    // The flow from before is what it was, for the application and for the service.
    assert_eq!(client.peer_addr().unwrap(), course.destination);
    assert_eq!(Redirect::of(&accepted).flow().unwrap().id(), before);
    assert_joined(&mut client, &mut accepted);

    daemon.kill();
    assert_eq!(pin::remove(&course.folder).unwrap().expect("pinned").links, links.len());
    course.assert_nothing_left();
    assert_joined(&mut client, &mut accepted);
}

/// An engine that is adopted counts on where the one before ended: it has the same maps.
#[test]
fn what_the_kernel_counts_goes_on() {
    let course = Course::new();
    let mut daemon = course.pinned("attached");
    let mut load = course.load();
    load.more(100);
    daemon.kill();
    load.more(100);
    let engine = Engine::adopt(&course.folder, &Options::default()).unwrap().expect("pinned").engine;
    let (answered, served) = load.end();
    let counters = engine.counters().unwrap();
    let redirected = counters[carnet_abi::COUNT_REDIRECTED];
    assert!(
        redirected >= served && served >= answered,
        "{redirected} redirected, {served} served, {answered} answered"
    );
    until("all to be handed over", || (engine.open_handovers().unwrap() == 0).then_some(()));
    engine.take_down().unwrap();
    course.assert_nothing_left();
}

#[test]
fn while_one_process_has_the_engine_no_other_adopts_it() {
    let course = Course::new();
    let mut daemon = course.pinned("pinned");
    let State::Whole(found) = pin::inspect(&course.folder).unwrap() else { panic!("it is pinned") };
    let pid = found.held_by.expect("the daemon's");
    let error = Engine::adopt(&course.folder, &Options::default()).expect_err("held").to_string();
    assert!(error.contains(&format!("process {pid} ")), "{error}");
    assert!(fs_exe(pid).contains("carnet-e2e-pinned"), "{}", fs_exe(pid));
    daemon.kill();
    let mut second = adopts(&course);
    Engine::adopt(&course.folder, &Options::default()).expect_err("held");
    second.kill();
    pin::remove(&course.folder).unwrap().expect("pinned");
    course.assert_nothing_left();
}

/// Killed in the moment in which the first file of each kind is there, and a few that are not so far: what is left is whole
/// and goes on, or is nobody's and removed.
#[test]
fn killed_while_it_pins_it_leaves_all_or_nothing_that_counts() {
    let course = Course::new();
    let mut seen = Vec::new();
    for how in ["pinned", "attached"] {
        for part in ["maps/carnet_socks", "programs/carnet_connect4", "stamp", "links/"] {
            let mut daemon = course.process(how);
            let there = || match part.strip_suffix('/') {
                Some(directory) => !listed(&course.folder.join(directory)).is_empty(),
                None => course.folder.join(part).symlink_metadata().is_ok(),
            };
            until("the file to be there", || there().then_some(()));
            daemon.kill();
            let state = pin::inspect(&course.folder).unwrap();
            match Engine::adopt(&course.folder, &Options::default()).expect("no error") {
                Some(adopted) => {
                    assert!(matches!(state, State::Whole(_)), "{how}, {part}: {state:?}");
                    let mut engine = adopted.engine;
                    engine.attach_services(&course.service).unwrap();
                    engine.attach_governed(&course.ground.governed).unwrap();
                    drop(course.flow());
                    engine.take_down().unwrap();
                }
                None => assert!(matches!(state, State::HalfMade { .. }), "{how}, {part}: {state:?}"),
            }
            seen.push(matches!(state, State::Whole(_)));
            course.assert_nothing_left();
        }
    }
    assert!(seen.contains(&true) && seen.contains(&false), "both have been seen: {seen:?}");
}

fn adopts(course: &Course) -> Running {
    let mut command = Command::new(env!("CARGO_BIN_EXE_carnet-e2e-pinned"));
    let mut daemon = Running::start(command.arg("adopts").arg(&course.folder));
    let said = daemon.line();
    let governed = format!("links on {}", course.ground.governed.path().display());
    let service = format!("links on {}", course.service.path().display());
    assert!(said.starts_with("engine ") && said.contains("policy 1"), "{said}");
    assert!(said.contains(&governed) && said.contains(&service), "{said}");
    daemon
}

fn fs_exe(pid: u32) -> String {
    std::fs::read_link(format!("/proc/{pid}/exe")).unwrap().to_string_lossy().into_owned()
}
