//! More than one engine on a host.

use std::io::Write;

use carnet_e2e::command::Run;
use carnet_e2e::sockets::{accept, connect, listen};
use carnet_e2e::{Daemon, Ground};

use crate::host::Host;

const THROUGH: &str = env!("CARGO_BIN_EXE_carnet-e2e-through");

/// Each in cgroups of its own, with pins and a socket of its own.
#[test]
fn two_daemons_govern_cgroups_beside_each_other() {
    let host = Host::new(2);
    let [left, right] = ["left", "right"].map(|name| host.ground.app.child(name).unwrap());
    let mut daemons = [(&left, 0, "left"), (&right, 1, "right")].map(|(cgroup, service, context)| {
        Daemon::start_on(&host.ground.name_of(cgroup), &host.redirecting(service, context))
    });
    assert_ne!(daemons[0].status().instance, daemons[1].status().instance);
    assert_ne!(daemons[0].pins(), daemons[1].pins());
    let goes_to = |cgroup, service: usize| {
        let _client = host.ground.within(cgroup, || connect(host.destinations[0])).expect("connect");
        drop(accept(&host.listeners[service]));
    };
    goes_to(&left, 0);
    goes_to(&right, 1);
    assert_eq!(daemons[0].down().code, 0);
    goes_to(&right, 1);
    assert!(host.ground.within(&left, || connect(host.destinations[0])).is_err());
    daemons[1].kill();
    goes_to(&right, 1);
    daemons[1].restart();
    assert!(daemons[1].status().adopted);
    goes_to(&right, 1);
}

/// `carnet run` makes a cgroup of its own, at the top.
#[test]
fn a_run_beside_a_served_cgroup_neither_breaks_nor_is_broken() {
    let host = Host::new(1);
    let mut daemon = host.daemon(&host.redirecting(0, "zero"));
    let origin = listen("127.0.0.1:0");
    let to = origin.local_addr().unwrap();
    let service = format!("'{THROUGH}' {{port}} m");
    let run = Run::idle(&["--through", &service]);
    let through_the_run = || {
        let mut client = run.in_app(|| connect(to)).expect("connect");
        client.write_all(b"x").unwrap();
        let mut accepted = accept(&origin);
        let mut came = [0; 2];
        std::io::Read::read_exact(&mut accepted, &mut came).unwrap();
        assert_eq!(&came, b"mx");
    };
    through_the_run();
    host.assert_goes_to(0, "zero");
    daemon.kill();
    through_the_run();
    host.assert_goes_to(0, "zero");
    daemon.restart();
    through_the_run();
    assert_eq!(daemon.down().code, 0);
    through_the_run();
    let mut run = run;
    run.close_input();
    assert_eq!(run.end().code, 0);
}

/// A cgroup that is not governed is not touched.
#[test]
fn outside_of_the_governed_cgroup_nothing_is_redirected() {
    let host = Host::new(1);
    let _daemon = host.daemon(&host.redirecting(0, "zero"));
    host.assert_goes_to(0, "zero");
    assert!(connect(host.destinations[0]).is_err());
    let inner = Ground::inside(&host.ground.app);
    inner.within(&inner.app, || connect(host.destinations[0])).expect("what is below is governed");
}
