//! The daemon dies, and nothing else.

use carnet::Redirect;
use carnet_control::EventKind;
use carnet_e2e::command::finish;
use carnet_e2e::sockets::{accept, assert_joined, until};

use crate::host::Host;

#[test]
fn killed_under_load_it_loses_nothing_and_the_next_one_takes_over() {
    let host = Host::new(1);
    let mut daemon = host.daemon(&host.redirecting(0, "zero"));
    let (mut client, mut accepted) = host.arrive(0);
    let service = host.serve(0, "zero");
    let mut clients = host.clients();
    clients.more(300);
    let (status, handle) = (daemon.status(), daemon.provider("s0").handle);
    assert!(!status.adopted);

    for _ in 0..3 {
        daemon.kill();
        clients.more(300);
        assert_joined(&mut client, &mut accepted);
        daemon.restart();
        let now = daemon.status();
        assert!(now.adopted && now.instance == status.instance, "{status:?}, {now:?}");
        assert_eq!(daemon.provider("s0").handle, handle);
        clients.more(300);
    }
    assert_eq!(daemon.log().matches("took over engine").count(), 3, "{}", daemon.log());
    service.assert_right();
    let made = clients.end();
    assert!(service.end() >= made);
    assert_joined(&mut client, &mut accepted);

    // What begins now is told by this daemon, and events are.
    let mut events = daemon.events();
    let flow = host.arrive(0);
    let pid = std::process::id();
    until("the flow to be told", || daemon.flows().iter().any(|flow| flow.pid == pid).then_some(()));
    println!("open: {:#?}", daemon.flows());
    drop(flow);
    until("its end to be told", || (!daemon.flows().iter().any(|flow| flow.pid == pid)).then_some(()));
    daemon.apply(&host.redirecting(0, "other"));
    events.wait_for(EventKind::Policy, "is in force");
}

#[test]
fn a_flow_between_two_services_goes_on_to_the_next_one_under_another_daemon() {
    let host = Host::new(3);
    let both = host.redirecting(0, "zero") + &host.redirecting(1, "one");
    let mut daemon = host.daemon(&both);
    let (mut client, first) = host.arrive(0);
    let flow = Redirect::of(&first).flow().unwrap().id();

    daemon.kill();
    // The next one has more in its file, in front of those that are there.
    daemon.write_policy(&(host.table(2, 5).redirecting("nobody's", "remote = \"192.0.2.1\"") + &both));
    let handles = |daemon: &carnet_e2e::Daemon| ["s0", "s1"].map(|name| daemon.provider(name).handle);
    daemon.restart();
    let there = handles(&daemon);
    daemon.kill();
    daemon.write_policy(&both);
    daemon.restart();
    assert_eq!(handles(&daemon), there);

    let onward = host.ground.within(&host.cgroup(0), || carnet::dial(&first)).unwrap();
    let mut second = accept(&host.listeners[1]);
    let redirect = Redirect::of(&second);
    let hop = redirect.flow().unwrap();
    assert_eq!((hop.id(), hop.depth(), hop.destination()), (flow, 2, host.destinations[0]));
    assert_eq!(hop.chain().iter().map(|hop| hop.handle).collect::<Vec<_>>(), there);
    assert_eq!(redirect.context().unwrap().unwrap_or_default(), b"one");
    let mut onward = onward;
    assert_joined(&mut onward, &mut second);
    assert_joined(&mut client, &mut { first });
}

#[test]
fn down_removes_everything_and_connections_live_on() {
    let host = Host::new(1);
    let mut daemon = host.daemon(&host.redirecting(0, "zero"));
    let (mut client, mut accepted) = host.arrive(0);
    assert!(!host.ground.links().is_empty() && daemon.pins().exists());
    let down = daemon.down();
    assert_eq!((down.code, &down.errors[..]), (0, ""), "{down:?}");
    assert!(down.output.ends_with("carnet is down\n"), "{}", down.output);
    host.assert_nothing_left(&daemon);
    assert!(!daemon.state().join("state.json").exists(), "its state");
    assert_joined(&mut client, &mut accepted);

    // And it begins anew.
    daemon.restart();
    assert!(!daemon.status().adopted);
    host.assert_goes_to(0, "zero");
}

#[test]
fn down_removes_what_a_killed_daemon_has_left() {
    let host = Host::new(1);
    let mut daemon = host.daemon(&host.redirecting(0, "zero"));
    let (mut client, mut accepted) = host.arrive(0);
    daemon.kill();
    host.assert_goes_to(0, "zero");
    let down = daemon.down();
    assert_eq!((down.code, &down.errors[..]), (0, ""), "{down:?}");
    until("no link to be left", || host.ground.links().is_empty().then_some(()));
    assert!(!daemon.pins().exists());
    host.assert_refused();
    assert_joined(&mut client, &mut accepted);

    daemon.restart();
    assert!(!daemon.status().adopted, "what is left of its state is of no engine");
    host.assert_goes_to(0, "zero");
}

#[test]
fn a_daemon_that_is_told_to_end_leaves_the_engine_at_work() {
    let host = Host::new(1);
    let mut daemon = host.daemon(&host.redirecting(0, "zero"));
    let instance = daemon.status().instance;
    let service = host.serve(0, "zero");
    let mut clients = host.clients();
    clients.more(100);
    assert!(daemon.terminate().success());
    assert!(!daemon.socket().exists(), "nobody is to wait at its socket");
    clients.more(300);
    daemon.restart();
    let status = daemon.status();
    assert!(status.adopted && status.instance == instance, "{status:?}");
    clients.more(300);
    service.assert_right();
    let made = clients.end();
    assert!(service.end() >= made);
}

#[test]
fn a_second_daemon_at_the_same_place_says_so_and_the_first_goes_on() {
    let host = Host::new(1);
    let daemon = host.daemon(&host.redirecting(0, "zero"));
    let second = daemon.second();
    assert_ne!(second.code, 0);
    assert!(
        second.errors.contains(&format!("a daemon serves {} already", daemon.socket().display())),
        "{}",
        second.errors
    );
    host.assert_goes_to(0, "zero");
    assert_eq!(daemon.status().pid, daemon.pid());
    assert_eq!(finish(&mut daemon.ask(&["status"])).code, 0);
}
