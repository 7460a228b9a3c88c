//! The daemon restarts while a product is registered.

use std::time::{Duration, Instant};

use carnet_control::EventKind;
use carnet_e2e::daemon::Table;
use carnet_e2e::sockets::{is_idle, until};
use carnet_e2e::{Daemon, Running};
use serde_json::json;

use crate::stage::{Arrival, Stage};

fn survives(end: impl Fn(&mut Daemon)) {
    let mut stage = Stage::new();
    let port = stage.destination().port().to_string();
    let mut product = Running::start(&mut stage.product("dlp", &["registers", &port]));
    let registered = product.line();
    let rank = stage.daemon.provider("dlp").rank;
    let mut load = Running::start(&mut stage.load());
    let mut done = move || {
        load.go_on();
        let line = load.line();
        let counts: Vec<&str> = line.splitn(3, ' ').collect();
        assert_eq!(counts[1], "0", "{line}");
        counts[0].parse::<u64>().unwrap()
    };
    for _ in 0..2 {
        let before = done();
        until("connections", || (done() > before + 50).then_some(()));
        end(&mut stage.daemon);
        // Nobody tends it, and it goes on.
        let before = done();
        until("connections", || (done() > before + 50).then_some(()));
        stage.daemon.restart();
        assert_eq!(product.line(), registered, "its handle is as it was");
        assert!(stage.daemon.status().adopted);
        assert_eq!((stage.daemon.provider("dlp").rank, stage.daemon.status().sessions), (rank, 1));
    }
    println!("{} connections, none failed", done());
    assert!(is_idle(&stage.server), "one came by the product");
}

#[test]
fn a_product_stays_in_force_over_a_daemon_that_is_killed() {
    survives(Daemon::kill);
}

#[test]
fn a_product_stays_in_force_over_a_daemon_that_is_ended() {
    survives(|daemon| assert!(daemon.terminate().success()));
}

#[test]
fn a_product_that_does_not_come_back_is_out_of_force_after_a_while() {
    let mut stage = Stage::new();
    let listener = stage.listener("127.0.0.1:0");
    let session = stage.register(json!([stage.listening("dlp", &listener)]), &[]).unwrap();
    stage.daemon.kill();
    drop(session);
    assert_eq!(stage.arrival(&listener), Arrival::Service, "until somebody can know");
    stage.daemon.restart();
    let mut events = stage.daemon.events();
    let begin = Instant::now();
    assert_eq!(stage.arrival(&listener), Arrival::Service);
    assert_eq!((stage.daemon.status().sessions, stage.daemon.providers().len()), (0, 1));
    stage.wait_for(Arrival::Server, &listener);
    let took = begin.elapsed();
    println!("out of force after {took:?}");
    assert!((Duration::from_secs(7)..Duration::from_secs(20)).contains(&took), "{took:?}");
    events.wait_for(EventKind::Policy, "0 providers");
}

#[test]
fn a_product_that_does_not_fit_the_next_file_goes_alone() {
    let mut stage = Stage::new();
    let at = |index| {
        let make = || carnet_e2e::sockets::listen("127.0.0.1:0");
        stage.ground.within(&stage.ground.service(index), make)
    };
    let [first, second] = [at(0), at(1)];
    let register = |index, name: &str, rank: u16, listener| {
        let mut provider = stage.listening(name, listener);
        provider["rank"] = rank.into();
        let request = json!({ "providers": [provider] });
        stage.register_from(&stage.ground.service(index), &request, &[]).unwrap()
    };
    let sessions = [register(0, "one", 30, &first), register(1, "two", 40, &second)];
    assert_eq!(stage.arrival(&first), Arrival::Service);
    stage.daemon.kill();
    drop(sessions);

    let file = Table::new("file", 30, &stage.ground, &stage.ground.service(2), &["127.0.0.1:9".parse().unwrap()]);
    stage.daemon.write_policy(&file.redirecting("none", "remote-port = 1"));
    stage.daemon.restart();
    let names: Vec<_> = stage.daemon.providers().into_iter().map(|provider| provider.name).collect();
    assert_eq!(names, ["file", "two"], "{}", stage.daemon.log());
    assert_eq!(stage.arrival(&second), Arrival::Service);
    assert!(is_idle(&first));
    stage.daemon.wait_for_log("The registration of one is out of force");
}
