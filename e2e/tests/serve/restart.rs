//! Which policy a daemon begins with, and which handles its providers have.

use carnet::Redirect;
use carnet_e2e::sockets::until;

use crate::host::Host;

#[test]
fn with_a_broken_file_the_policy_in_force_stays() {
    let host = Host::new(1);
    let mut daemon = host.daemon(&host.redirecting(0, "zero"));
    daemon.kill();
    for broken in ["defualt = \"block\"", "[[provider"] {
        daemon.write_policy(broken);
        daemon.restart();
        assert!(daemon.log().contains("The policy that was in force stays"), "{}", daemon.log());
        host.assert_goes_to(0, "zero");
        daemon.kill();
    }
    std::fs::remove_file(daemon.policy_file()).unwrap();
    daemon.restart();
    host.assert_goes_to(0, "zero");

    // Whoever mends it has it read again.
    daemon.write_policy(&host.redirecting(0, "mended"));
    daemon.told(&["reload"]);
    host.assert_goes_to(0, "mended");
}

#[test]
fn a_first_daemon_with_a_broken_file_does_not_begin_and_leaves_nothing() {
    let host = Host::new(1);
    let mut daemon = carnet_e2e::Daemon::prepare(&host.ground.name_of(&host.ground.governed), "defualt = 7");
    daemon.begin();
    assert!(!daemon.end().success());
    daemon.wait_for_log("defualt");
    until("no link to be left", || host.ground.links().is_empty().then_some(()));
    host.assert_nothing_left(&daemon);
}

#[test]
fn a_policy_that_was_sent_stays_until_the_file_is_another() {
    let host = Host::new(2);
    let mut daemon = host.daemon(&host.redirecting(0, "file"));
    daemon.apply(&host.redirecting(1, "sent"));
    daemon.kill();
    daemon.restart();
    host.assert_goes_to(1, "sent");
    assert!(daemon.log().contains("stays in force"), "{}", daemon.log());

    daemon.kill();
    daemon.write_policy(&host.redirecting(0, "new"));
    daemon.restart();
    host.assert_goes_to(0, "new");

    // What is sent last counts again.
    daemon.apply(&host.redirecting(1, "sent"));
    daemon.terminate();
    daemon.restart();
    host.assert_goes_to(1, "sent");
    daemon.told(&["reload"]);
    host.assert_goes_to(0, "new");
}

#[test]
fn without_its_state_no_provider_gets_a_handle_that_another_one_has_had() {
    let host = Host::new(3);
    let mut daemon = host.daemon(&(host.redirecting(0, "zero") + &host.redirecting(1, "one")));
    let (_client, accepted) = host.arrive(0);
    let handles = |daemon: &carnet_e2e::Daemon| {
        let told = daemon.json(&["providers"]);
        let all = told.as_array().or_else(|| told["providers"].as_array()).unwrap();
        all.iter().map(|provider| provider["handle"].as_u64().unwrap()).collect::<Vec<_>>()
    };
    let before = handles(&daemon);
    assert_eq!(before.len(), 2);

    daemon.kill();
    std::fs::remove_file(daemon.state().join("state.json")).unwrap();
    daemon.write_policy(&(host.table(2, 5).redirecting("two", &host.conditions()) + &host.redirecting(0, "zero")));
    daemon.restart();
    assert!(daemon.status().adopted);
    let after = handles(&daemon);
    assert!(after.len() == 2 && after.iter().all(|handle| !before.contains(handle)), "{before:?}, {after:?}");
    // What the first one had is not the other one's to carry on.
    let records = Redirect::of(&accepted).records().unwrap();
    host.ground.within(&host.cgroup(2), || {
        let socket = carnet_e2e::sockets::stream(host.destinations[0]);
        assert_eq!(carnet_e2e::set_records(&socket, records.as_bytes()), Err(nix::errno::Errno::EACCES as i32));
    });
}
