//! A provider that restarts, as planned and otherwise.

use std::fs;
use std::io::Read;
use std::os::fd::AsFd;
use std::time::Duration;

use carnet_control::{EventKind, ProviderState};
use carnet_e2e::sockets::{connect, is_idle, listen, until};
use carnet_e2e::{Ground, Running, daemon::Table, enter};

use crate::stage::{Arrival, Stage};

/// A stage whose policy file has a provider at an address where nobody listens yet.
fn stage(line: &str) -> (Stage, String) {
    let ground = Ground::new();
    let at = listen("127.0.0.1:0").local_addr().unwrap();
    let table = Table::new("dlp", 10, &ground, &ground.service(0), &[at]).with(line);
    let stage = Stage::on(ground, "");
    let port = stage.destination().port();
    stage.daemon.apply(&table.redirecting("web", &format!("remote-port = {port}")));
    (stage, at.to_string())
}

/// Clients that count what goes well and what does not.
struct Load(Vec<Running>);

impl Load {
    fn start(stage: &Stage) -> Self {
        Self((0..CLIENTS).map(|_| Running::start(&mut stage.load())).collect())
    }

    /// How many have gone well until now. None has gone otherwise.
    fn done(&mut self) -> u64 {
        let count = |client: &mut Running| {
            client.go_on();
            let line = client.line();
            let mut words = line.splitn(3, ' ');
            let mut number = || words.next().unwrap().parse::<u64>().unwrap();
            let (well, not) = (number(), number());
            assert_eq!(not, 0, "{line}");
            well
        };
        self.0.iter_mut().map(count).sum()
    }

    /// Waits until so many more have.
    fn go_on(&mut self, more: u64) {
        let before = self.done();
        until("connections", || (self.done() >= before + more).then_some(()));
    }
}

#[test]
fn no_connection_fails_while_a_provider_restarts_as_planned() {
    let (stage, at) = stage("");
    let mut service = Running::start(&mut stage.product("dlp", &["starts", &at]));
    assert_eq!(service.line(), "ready");
    let mut events = stage.daemon.events();
    let mut load = Load::start(&stage);
    for _ in 0..RESTARTS {
        load.go_on(100);
        service.go_on();
        assert_eq!(service.line(), "held");
        assert!(until("its end", || service.ended()).success());
        assert_eq!(stage.daemon.provider("dlp").state, ProviderState::Held);
        events.wait_for(EventKind::Held, "dlp");
        service = Running::start(&mut stage.product("dlp", &["returns"]));
        assert_eq!(service.line(), "ready");
        events.wait_for(EventKind::Released, "dlp");
    }
    load.go_on(100);
    println!("{} connections over {RESTARTS} restarts, none failed", load.done());
    assert!(is_idle(&stage.server), "one came by the service");
}

#[test]
fn a_product_that_registered_itself_can_restart_as_planned_too() {
    let stage = Stage::new();
    let port = stage.destination().port().to_string();
    let mut product = Running::start(&mut stage.product("dlp", &["registers", &port]));
    let registered = product.line();
    let mut load = Load::start(&stage);
    for _ in 0..RESTARTS {
        load.go_on(100);
        product.go_on();
        assert_eq!(product.line(), "held");
        assert!(until("its end", || product.ended()).success());
        product = Running::start(&mut stage.product("dlp", &["comes-back", &port]));
        assert_eq!(product.line(), registered, "its handle is as it was");
    }
    load.go_on(100);
    println!("{} connections over {RESTARTS} restarts, none failed", load.done());
    assert!(is_idle(&stage.server), "one came by the product");
}

/// As service managers do: its cgroup goes with it, and is made again with another id.
#[test]
fn no_connection_fails_while_a_provider_restarts_in_a_cgroup_made_anew() {
    for is_outside in [false, true] {
        let stage = Stage::new();
        let beside = Ground::beside(&stage.ground);
        let ground = if is_outside { &beside } else { &stage.ground };
        let product = |command: &[&str]| {
            let mut product = enter(&ground.service(0), crate::PRODUCT);
            Running::start(product.arg(stage.daemon.socket()).arg("dlp").args(command))
        };
        let at = listen("127.0.0.1:0").local_addr().unwrap();
        let table = Table::new("dlp", 10, ground, &ground.service(0), &[at]);
        let port = stage.destination().port();
        stage.daemon.apply(&table.redirecting("web", &format!("remote-port = {port}")));
        let mut service = product(&["starts", &at.to_string()]);
        assert_eq!(service.line(), "ready");
        stage.daemon.wait_for_state("dlp", ProviderState::Alive);
        let mut load = Load::start(&stage);
        load.go_on(100);
        service.go_on();
        assert_eq!(service.line(), "held");
        assert!(until("its end", || service.ended()).success());

        let mut events = stage.daemon.events();
        let mut waiting = Vec::new();
        let mut arrive = || {
            let client = stage.ground.within(&stage.ground.app, || connect(stage.destination()));
            waiting.push(client.expect("it waits"));
            assert!(is_idle(&stage.server), "one came by the service");
        };
        let (cgroup, before) = (ground.service(0).path().to_owned(), ground.service(0).id());
        until("it to be removed", || fs::remove_dir(&cgroup).ok());
        arrive();
        events.wait_for(EventKind::Policy, "is in force");
        arrive();
        assert_eq!(stage.daemon.provider("dlp").state, ProviderState::Held);
        assert_ne!(ground.service(0).id(), before);
        arrive();
        events.wait_for(EventKind::Policy, "is in force");
        arrive();
        let mut service = product(&["returns"]);
        assert_eq!(service.line(), "ready");
        // It answers none without its record.
        for client in &mut waiting {
            client.read_exact(&mut [0]).expect("an answer");
        }
        load.go_on(100);
        stage.daemon.wait_for_state("dlp", ProviderState::Alive);
        assert!(is_idle(&stage.server), "one came by the service");
        service.kill();
    }
}

#[test]
fn one_that_does_not_come_back_in_time_is_dead() {
    let (stage, at) = stage("");
    let listener = stage.listener(&at);
    let mut events = stage.daemon.events();
    let fd = listener.as_fd();
    stage.daemon.asked(async |client| client.hold("dlp", &[fd], Duration::from_secs(2)).await).unwrap();
    drop(listener);
    let none = stage.listener("127.0.0.1:0");
    stage.daemon.wait_for_state("dlp", ProviderState::Held);
    let waiting = stage.ground.within(&stage.ground.app, || connect(stage.destination()));
    waiting.expect("it waits");
    events.wait_for(EventKind::Released, "time is over");
    assert!(stage.wait_for(Arrival::Refused(libc::ECONNREFUSED), &none) < Duration::from_secs(5));
    stage.daemon.wait_for_state("dlp", ProviderState::Dead);
    let late = crate::stage::problem(stage.daemon.asked(async |client| client.release("dlp").await));
    assert_eq!(late.status, 404);
}

#[test]
fn connections_of_one_that_is_killed_are_refused_or_pass_it_by_as_it_says() {
    for (line, arrival) in
        [("on-dead = \"closed\"", Arrival::Refused(libc::ECONNREFUSED)), ("on-dead = \"open\"", Arrival::Server)]
    {
        let (stage, at) = stage(line);
        let mut service = Running::start(&mut stage.product("dlp", &["starts", &at]));
        assert_eq!(service.line(), "ready");
        stage.daemon.wait_for_state("dlp", ProviderState::Alive);
        service.kill();
        let none = stage.listener("127.0.0.1:0");
        assert_eq!(stage.arrival(&none), arrival, "at once: {line}");
        stage.daemon.wait_for_state("dlp", ProviderState::Dead);
        let mut service = Running::start(&mut stage.product("dlp", &["starts", &at]));
        assert_eq!(service.line(), "ready");
        let mut load = Load::start(&stage);
        load.go_on(10);
        drop(service);
    }
}

#[test]
fn who_takes_a_providers_port_gets_nothing_and_is_told() {
    let (stage, at) = stage("");
    let mut events = stage.daemon.events();
    let cgroup = stage.ground.name_of(&stage.ground.app);
    let squatter = stage.ground.within(&stage.ground.app, || carnet_e2e::raw::as_nobody(|| listen(&at)));
    assert_eq!(stage.arrival(&squatter), Arrival::Refused(libc::ECONNREFUSED));
    let event = events.wait_for(EventKind::Stranger, "dlp");
    assert_eq!((event.provider.as_deref(), event.state), (Some("dlp"), Some(ProviderState::Stranger)));
    let told = event.stranger.unwrap();
    assert_eq!((told.address.to_string(), told.uid), (at.clone(), carnet_e2e::raw::NOBODY));
    assert!(told.cgroup.as_deref().is_some_and(|told| told.ends_with(&cgroup)), "{told:?}");
    assert_eq!(stage.daemon.provider("dlp").state, ProviderState::Stranger);
    assert!(is_idle(&squatter) && is_idle(&stage.server));
    drop(squatter);
    let own = stage.listener(&at);
    stage.wait_for(Arrival::Service, &own);
    stage.daemon.wait_for_state("dlp", ProviderState::Alive);
}

const CLIENTS: usize = 3;
const RESTARTS: usize = 4;
