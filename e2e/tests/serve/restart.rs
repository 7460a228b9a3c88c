//! Which policy a daemon begins with.

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
