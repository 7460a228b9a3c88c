//! What a run cannot have of a daemon.

use std::process::Command;

use carnet_e2e::command::{carnet, finish, undisturbed};
use carnet_e2e::enter;

use crate::Host;

#[test]
fn who_may_not_register_is_told_what_to_do() {
    let host = Host::new();
    let mut command = enter(&host.ground.app, "setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(carnet());
    undisturbed(&mut command).arg("run").arg("--socket").arg(host.daemon.socket()).args(["--", "true"]);
    let ended = finish(&mut command);
    assert_eq!(ended.code, 3, "{ended:?}");
    for words in ["may not register", "--own-engine"] {
        assert!(ended.errors.contains(words), "{words}: {ended:?}");
    }
    host.assert_no_session();
}

#[test]
fn what_holds_for_all_is_the_policys() {
    let host = Host::new();
    for (option, key) in [("--strict", "`strict = true`"), ("--block-quic", "`block-quic = true`")] {
        let ended = finish(&mut host.run(&[option, "--", "true"]));
        assert!(ended.code == 3 && ended.errors.contains(key), "{ended:?}");
    }
    drop(host);
    let host = Host::with("strict = true\nblock-quic = true\n");
    let ended = finish(&mut host.run(&["--strict", "--block-quic", "--", "true"]));
    assert_eq!(ended.code, 0, "{ended:?}");
}

#[test]
fn a_socket_that_was_named_and_where_nobody_listens_is_an_error() {
    let mut command = Command::new(carnet());
    undisturbed(&mut command).args(["run", "--socket", "/nowhere/control.sock", "--", "true"]);
    let ended = finish(&mut command);
    assert!(ended.code == 3 && ended.errors.contains("no daemon listens at /nowhere/control.sock"), "{ended:?}");
}
