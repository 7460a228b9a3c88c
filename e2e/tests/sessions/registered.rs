//! What is registered over the control socket, and until when.

use std::time::{Duration, Instant};

use carnet::Redirect;
use carnet_control::{EventKind, ProviderState};
use carnet_e2e::sockets::{accept, connect};
use carnet_e2e::{Ground, Running, daemon::Table};
use serde_json::json;

use crate::stage::{Arrival, Stage};

#[test]
fn a_provider_gets_connections_as_long_as_its_connection_lasts() {
    let stage = Stage::new();
    let listener = stage.listener("127.0.0.1:0");
    assert_eq!(stage.arrival(&listener), Arrival::Server);
    let mut events = stage.daemon.events();
    let mut provider = stage.listening("dlp", &listener);
    provider["filters"][0]["context"] = "the context".into();
    let session = stage.register(json!([provider]), &[]).unwrap();

    // It is in force as soon as the answer is there.
    let client = stage.ground.within(&stage.ground.app, || connect(stage.destination())).unwrap();
    let accepted = accept(&listener);
    assert_eq!(Redirect::of(&accepted).context().unwrap().as_deref(), Some(&b"the context"[..]));
    assert_eq!(Redirect::of(&accepted).flow().unwrap().destination(), stage.destination());
    drop((client, accepted));
    let told = stage.daemon.provider("dlp");
    assert_eq!(told.session, Some(session.registered().session));
    assert_eq!(
        (told.handle, told.rank),
        (session.registered().providers[0].handle, session.registered().providers[0].rank)
    );
    assert_eq!((told.filters, session.registered().filters), (1, 1));
    stage.daemon.wait_for_state("dlp", ProviderState::Alive);
    assert_eq!(stage.daemon.status().sessions, 1);

    drop(session);
    let took = stage.wait_for(Arrival::Server, &listener);
    println!("out of force {took:?} after the connection's end");
    assert!(took < SOON, "{took:?}");
    events.wait_for(EventKind::SessionEnded, "dlp");
    assert_eq!((stage.daemon.providers().len(), stage.daemon.status().sessions), (0, 0));
}

#[test]
fn a_product_that_is_killed_leaves_nothing_behind() {
    let stage = Stage::new();
    let port = stage.destination().port().to_string();
    let mut product = Running::start(&mut stage.product("dlp", &["registers", &port]));
    assert!(product.line().starts_with("registered "));
    let none = stage.listener("127.0.0.1:0");
    // It is at a listener that is not to be seen from here.
    stage.ground.within(&stage.ground.app, || connect(stage.destination())).unwrap();
    assert!(carnet_e2e::sockets::is_idle(&stage.server), "it came by the product");
    product.kill();
    let took = stage.wait_for(Arrival::Server, &none);
    println!("out of force {took:?} after the product was killed");
    assert!(took < SOON, "{took:?}");
    assert_eq!(stage.daemon.providers().len(), 0);
}

#[test]
fn several_providers_and_filters_of_the_host_are_registered_as_one() {
    let ground = Ground::new();
    let far = "127.0.0.1:9".parse().unwrap();
    let file = Table::new("file", 70, &ground, &ground.service(1), &[far]).redirecting("none", "remote-port = 1");
    let stage = Stage::on(ground, &file);
    let [first, second] = ["127.0.0.1:0", "127.0.0.1:0"].map(|at| stage.listener(at));
    let [one, mut two] = [stage.listening("one", &first), stage.listening("two", &second)];
    // Two of one owner would be one.
    assert_eq!(stage.refused(json!([one.clone(), two.clone()]), &[]).status, 422);
    two["owner"] = json!({"cgroup": stage.ground.name_of(&stage.ground.service(2))});
    let providers = json!([one, two]);
    let block = json!({"match": {"remote-port": 2}, "action": "block"});
    let request = json!({"providers": providers, "filters": [block]});
    let session = stage.register_from(&stage.ground.service(0), &request, &[]).unwrap();

    let registered = session.registered();
    let names: Vec<_> = registered.providers.iter().map(|provider| provider.name.as_str()).collect();
    assert_eq!(names, ["one", "two"]);
    assert!(registered.providers[0].rank > 70 && registered.providers[1].rank > registered.providers[0].rank);
    assert_ne!(registered.providers[0].handle, registered.providers[1].handle);
    assert_eq!(registered.filters, 3);
    assert_eq!(stage.arrival(&first), Arrival::Service, "the first has it first");
    let blocked = || stage.ground.within(&stage.ground.app, || connect("127.0.0.1:2".parse().unwrap())).unwrap_err();
    assert_eq!(blocked(), libc::EACCES);

    drop(session);
    stage.wait_for(Arrival::Server, &first);
    assert_eq!(blocked(), libc::ECONNREFUSED, "nobody is there");
}

#[test]
fn what_does_not_go_together_with_the_file_is_refused_and_changes_nothing() {
    let ground = Ground::new();
    let listener = ground.within(&ground.service(0), || carnet_e2e::sockets::listen("127.0.0.1:0"));
    let at = listener.local_addr().unwrap();
    let file = Table::new("dlp", 10, &ground, &ground.service(0), &[at]).redirecting("none", "remote-port = 1");
    let stage = Stage::on(ground, &file);
    let free = stage.listener("127.0.0.1:0");
    let before = stage.in_force();
    let mut ranked = stage.listening("other", &free);
    ranked["rank"] = 10.into();
    let mut strange = stage.listening("other", &free);
    strange["filters"][0]["match"]["remote"] = "@nowhere".into();
    for (what, provider, words) in [
        ("name", stage.listening("dlp", &free), "dlp"),
        ("rank", ranked, "10"),
        ("listener", stage.listening("other", &listener), &at.to_string()),
        ("set", strange, "nowhere"),
        ("owner", stage.listening("other", &free), "this owner is given twice"),
    ] {
        let problem = stage.refused(json!([provider]), &[]);
        assert!([409, 422].contains(&problem.status), "{what}: {problem:?}");
        let told = format!("{} {:?}", problem.detail, problem.mistakes);
        assert!(told.contains(words), "{what}: {told}");
        println!("{what}: {} {}", problem.status, told);
        assert_eq!(stage.in_force(), before, "{what}");
    }
    // Two of one registration neither.
    let [one, two] = ["same", "same"].map(|name| stage.listening(name, &free));
    assert!([409, 422].contains(&stage.refused(json!([one, two]), &[]).status));
    assert_eq!(stage.in_force(), before);
    assert_eq!(stage.arrival(&free), Arrival::Server);
}

#[test]
fn sets_of_the_file_can_be_named() {
    let stage = Stage::new();
    let port = stage.destination().port();
    stage.daemon.apply(&format!("[sets.web]\nports = [{port}]\n"));
    let listener = stage.listener("127.0.0.1:0");
    let mut provider = stage.listening("dlp", &listener);
    provider["filters"][0]["match"] = json!({"remote-port": "@web"});
    let _session = stage.register(json!([provider]), &[]).unwrap();
    assert_eq!(stage.arrival(&listener), Arrival::Service);
    // The next policy has no such set any more: that does not go together with what is registered.
    let refused = crate::stage::problem(stage.daemon.try_apply("default = \"permit\"", false, None));
    assert_eq!(refused.status, 409, "{refused:?}");
    assert_eq!(stage.arrival(&listener), Arrival::Service);
}

#[test]
fn a_policy_that_is_put_in_force_keeps_what_is_registered() {
    let stage = Stage::new();
    let listener = stage.listener("127.0.0.1:0");
    let session = stage.register(json!([stage.listening("dlp", &listener)]), &[]).unwrap();
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_millis(500) {
        stage.daemon.apply("default = \"permit\"\n");
        assert_eq!(stage.arrival(&listener), Arrival::Service);
    }
    let handle = session.registered().providers[0].handle;
    assert_eq!(stage.daemon.provider("dlp").handle, handle);
}

/// The end of a connection is seen at once, and takes a policy more to be put in force.
const SOON: Duration = Duration::from_secs(5);
