//! Programs of others, and whether what is said of them is so.

use std::io::Read;
use std::net::{TcpListener, TcpStream};

use carnet_e2e::command::{carnet, finish};
use carnet_e2e::{Ground, Sandbox, enter};
use carnet_engine::cgroup::Cgroup;
use carnet_engine::{Engine, Error, Options};

use crate::foreign::{CONNECT4, EXCLUSIVE, Foreign, GETSOCKNAME4, GETSOCKOPT, LISTED_BYTES, MULTI, OVERRIDE};
use crate::{Answer, asked, doctor};

#[test]
fn a_program_beside_carnets_is_named_with_who_holds_it() {
    let ground = Ground::new();
    let place = ground.governed.path().to_str().unwrap();
    assert_eq!(about(&ground.governed).all("connect-before").len(), 0);

    let mut foreign = Foreign::load();
    let id = foreign.link("lb_connect4", &ground.governed);
    let answer = about(&ground.governed);
    let finding = answer.assert_says("connect-before", "warning", &["lb_connect4", &format!("id {id}"), place]);
    assert_eq!((answer.code, finding["area"].as_str()), (0, Some("programs")));
    let details = &finding["details"];
    assert_eq!(details["cgroup"], place);
    let program = &details["programs"][0];
    assert_eq!(
        (&program["id"], &program["name"], &program["hook"]),
        (&id.into(), &"lb_connect4".into(), &"connect4".into())
    );
    assert_eq!((&program["mode"], &program["uid"]), (&"multi".into(), &0.into()));
    assert!(program["link"].is_u64());
    let holders = program["held_by"].as_array().unwrap();
    assert!(holders.iter().any(|holder| holder["pid"] == std::process::id()), "{holders:?}");

    drop(foreign);
    assert_eq!(about(&ground.governed).all("connect-before").len(), 0);
}

#[test]
fn programs_above_run_after_carnets_and_those_of_sockets_and_packets_are_named_too() {
    let ground = Ground::with_ancestor();
    let foreign = Foreign::load();
    foreign.attach("lb_connect4", CONNECT4, &ground.ancestor(), MULTI);
    foreign.attach("own_getsockopt", GETSOCKOPT, &ground.ancestor(), MULTI);
    foreign.attach("own_sockname4", GETSOCKNAME4, &ground.ancestor(), MULTI);
    const EGRESS: u32 = 1;
    foreign.attach("own_egress", EGRESS, &ground.ancestor(), MULTI);
    let answer = about(&ground.governed);
    let above = ground.ancestor().path().to_str().unwrap().to_owned();
    let finding = answer.assert_says("connect-after", "note", &["lb_connect4", &above]);
    assert!(finding["details"]["programs"][0]["link"].is_null());
    answer.assert_says("options-shared", "warning", &["own_getsockopt", &above]);
    answer.assert_says("sockname-shared", "note", &["own_sockname4", &above]);
    answer.assert_says("egress-filter", "note", &["own_egress", &above]);
    assert_eq!((answer.code, answer.all("connect-before").len()), (0, 0));
    load_and_attach(&ground.governed).expect("none of them is in the way");
}

#[test]
fn a_program_that_allows_nobody_else_is_a_problem_and_is_one() {
    for with_ancestor in [true, false] {
        let ground = if with_ancestor { Ground::with_ancestor() } else { Ground::new() };
        let place = if with_ancestor { ground.ancestor() } else { open(&ground, &ground.governed) };
        load_and_attach(&ground.governed).expect("nothing is in the way");

        let foreign = Foreign::load();
        foreign.attach("lb_connect4", CONNECT4, &place, EXCLUSIVE);
        let answer = about(&ground.governed);
        let path = place.path().to_str().unwrap();
        let finding = answer.assert_says("attach-blocked", "problem", &["lb_connect4", "connect4", path, "EPERM"]);
        assert_eq!(finding["details"]["programs"][0]["mode"], "exclusive");
        assert_eq!((answer.code, &answer.report["worst"]), (1, &"problem".into()));
        assert!(load_and_attach(&ground.governed).is_err(), "the kernel says so, too");
    }
}

#[test]
fn a_program_that_can_be_overridden_does_not_run_below_carnets() {
    let ground = Ground::with_ancestor();
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let connect = || ground.within(&ground.app, || TcpStream::connect(server.local_addr().unwrap()));
    let foreign = Foreign::load();
    foreign.attach("deny_connect4", CONNECT4, &ground.ancestor(), OVERRIDE);
    assert_eq!(connect().expect_err("denied").raw_os_error(), Some(libc::EHOSTDOWN));

    let answer = about(&ground.governed);
    let finding = answer.assert_says("attach-overrides", "warning", &["deny_connect4", "does not run"]);
    assert_eq!((answer.code, &finding["details"]["programs"][0]["mode"]), (0, &"override".into()));
    let _engine = load_and_attach(&ground.governed).expect("attaching is allowed");
    connect().expect("the other program does not run");
}

#[test]
fn a_program_that_can_be_overridden_blocks_its_own_cgroup() {
    let ground = Ground::new();
    let foreign = Foreign::load();
    foreign.attach("lb_connect4", CONNECT4, &ground.governed, OVERRIDE);
    about(&ground.governed).assert_says("attach-blocked", "problem", &["lb_connect4"]);
    assert!(load_and_attach(&ground.governed).is_err(), "the kernel says so, too");
}

#[test]
fn a_command_of_carnet_run_leaves_the_programs_of_its_callers_cgroup() {
    let ground = Ground::new();
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = format!("exec 3<>/dev/tcp/127.0.0.1/{}", server.local_addr().unwrap().port());
    let carnet = carnet();
    let from_within = |arguments: &[&str]| finish(enter(&ground.app, carnet.to_str().unwrap()).args(arguments));
    let foreign = Foreign::load();
    foreign.attach("deny_connect4", CONNECT4, &ground.governed, MULTI);
    assert_ne!(finish(enter(&ground.app, "bash").args(["-c", &client])).code, 0, "denied");

    let answer = asked(enter(&ground.app, carnet.to_str().unwrap()).arg("doctor"));
    answer.assert_says("programs-left", "note", &["deny_connect4", ground.governed.path().to_str().unwrap()]);
    answer.assert_says("cgroup-own", "ok", &[ground.app.path().to_str().unwrap()]);
    let ended = from_within(&["run", "--", "bash", "-c", &client]);
    assert_eq!(ended.code, 0, "{ended:?}");
}

#[test]
fn another_engine_is_told() {
    let sandbox = Sandbox::new();
    let answer = about(sandbox.app_cgroup());
    let finding = answer.assert_says("other-engine", "note", &["carnet_connect4", "carnet_sockops", "other-engine"]);
    let hooks: Vec<_> = finding["details"]["programs"]
        .as_array()
        .unwrap()
        .iter()
        .map(|program| program["hook"].as_str().unwrap())
        .collect();
    for hook in ["connect4", "connect6", "getpeername4", "getpeername6", "sock_ops", "sock_release"] {
        assert!(hooks.contains(&hook), "{hook}: {hooks:?}");
    }
    assert_eq!(answer.code, 0);
}

/// Why the list of programs is read with room for all of it.
#[test]
fn the_cgroup_iterator_cannot_go_on_after_a_short_read() {
    let ground = Ground::with_ancestor();
    let levels = ground.hierarchy.level_of(ground.governed.path()).unwrap() as usize + 1;
    assert!(levels >= 3, "the walk has something to go on with");
    let foreign = Foreign::load();

    let mut room = [0; 64 * 1024];
    let mut walk = foreign.listing(&ground.governed);
    assert_eq!(walk.read(&mut room).unwrap(), levels * LISTED_BYTES, "all in one read");
    assert_eq!(walk.read(&mut room).unwrap(), 0, "and then the end");

    let mut walk = foreign.listing(&ground.governed);
    assert_eq!(walk.read(&mut room[..LISTED_BYTES]).unwrap(), LISTED_BYTES, "as much as there is room for");
    let error = walk.read(&mut room).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EOPNOTSUPP), "{error}");
}

fn about(cgroup: &Cgroup) -> Answer {
    doctor(&["--cgroup", cgroup.path().to_str().unwrap()])
}

fn load_and_attach(cgroup: &Cgroup) -> Result<Engine, Error> {
    let mut engine = Engine::load(cgroup, &Options::default()).expect("the engine loads");
    engine.attach_governed(cgroup).map(|()| engine)
}

fn open(ground: &Ground, cgroup: &Cgroup) -> Cgroup {
    Cgroup::open(&ground.hierarchy, cgroup.path()).unwrap()
}
