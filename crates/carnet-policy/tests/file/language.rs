//! What a file says is what the policy is.

use std::net::SocketAddr;
use std::sync::Arc;

use carnet_policy::file::{Control, Nowhere, PolicyFile, Principal};
use carnet_policy::{
    Action, Condition, Executable, Filter, HostAction, HostFilter, Line, Match, OnDead, Owner, Policy, Prefix,
    Protocol, Provider, Reach, Service, SockName,
};

use crate::stage::{Folder, Somewhere, folder, read};

fn prefix(address: &str, length: u8) -> Prefix {
    Prefix { address: address.parse().unwrap(), length }
}

fn line(ids: &[u64]) -> Line {
    let mut line = Line::default();
    line.0[..ids.len()].copy_from_slice(ids);
    line
}

/// The condition of the only filter, of the host.
fn matches(conditions: &str) -> Match {
    let text = format!("[[filter]]\nname = \"a\"\naction = \"permit\"\nmatch = {{ {conditions} }}\n");
    let (_, mut resolved) = read(&text).unwrap_or_else(|mistakes| panic!("{mistakes:#?}"));
    resolved.policy.filters.remove(0).matches
}

/// A condition on all lists as one.
fn flat<T: Clone>(condition: &Condition<T>) -> (Option<Vec<T>>, Vec<T>) {
    let flat = |lists: &Vec<Arc<[T]>>| lists.iter().flat_map(|list| list.iter().cloned()).collect();
    (condition.only.as_ref().map(flat), flat(&condition.except))
}

#[test]
fn nothing_is_a_policy_that_permits() {
    let (file, resolved) = read("").unwrap();
    assert_eq!(resolved.policy, Policy::default());
    assert_eq!(resolved.control, Control::default());
    assert_eq!((resolved.notes, resolved.dead), (vec![], vec![]));
    assert!(file.resolve(&Somewhere).is_ok());
}

#[test]
fn every_key_is_what_it_says() {
    let text = r#"
        default = "block"
        block-quic = true
        strict = true

        [control]
        read = ["alice", "%adm", 5, "%6"]
        register = []

        [[provider]]
        name = "dlp"
        rank = 10
        listen = ["127.0.0.1:15001", "[::1]:15001"]
        owner = [{ cgroup = "/system.slice/dlp.service" }, { uid = "dlp" }, { uid = 7 }]
        records = "unaware"
        on-dead = "open"
        direct = true
        reach = "anywhere"
        sockname = "destination"
        in-flight-limit = 9

        [[provider.filter]]
        name = "web"
        weight = 200
        action = "redirect"
        context = "site=hq"
        match = { remote-port = 443 }

        [[provider.filter]]
        name = "bytes"
        action = "redirect"
        context-base64 = "AP8="

        [[provider.filter]]
        name = "skip"
        action = "skip"

        [[provider]]
        name = "av"
        rank = 5
        listen = "127.0.0.1:15002"
        owner = { uid = "av" }

        [[provider.filter]]
        name = "block"
        action = "block"

        [[filter]]
        name = "host"
        weight = 4294967295
        action = "permit"
        match = { protocol = "tcp" }
    "#;
    let (file, resolved) = read(text).unwrap();
    let filter = |name: &str, weight, matches, action| Filter { name: name.into(), weight, matches, action };
    let redirect = |context: &[u8]| Action::Redirect { context: context.to_vec() };
    let ports = |port| Match { ports: Condition::only([port..=port]), ..Match::default() };
    let dlp = Provider {
        name: "dlp".into(),
        handle: 1,
        rank: 10,
        service: Service::Unaware,
        on_dead: OnDead::Open,
        direct: true,
        reach: Reach::Anywhere,
        sockname: SockName::Destination,
        owners: vec![Owner::Cgroup { id: 100, level: 2 }, Owner::Uid(990), Owner::Uid(7)],
        listeners: ["127.0.0.1:15001", "[::1]:15001"].map(|listener| listener.parse::<SocketAddr>().unwrap()).to_vec(),
        in_flight_limit: 9,
        filters: vec![
            filter("web", 200, ports(443), redirect(b"site=hq")),
            filter("bytes", 0, Match::default(), redirect(&[0, 255])),
            filter("skip", 0, Match::default(), Action::Skip),
        ],
    };
    let av = Provider {
        name: "av".into(),
        handle: 2,
        rank: 5,
        service: Service::Aware,
        on_dead: OnDead::Closed,
        direct: false,
        reach: Reach::Routes,
        sockname: SockName::Own,
        owners: vec![Owner::Uid(991)],
        listeners: vec!["127.0.0.1:15002".parse().unwrap()],
        in_flight_limit: 32768,
        filters: vec![filter("block", 0, Match::default(), Action::Block)],
    };
    let host = HostFilter {
        name: "host".into(),
        weight: u32::MAX,
        matches: Match { protocol: Some(Protocol::Tcp), ..Match::default() },
        action: HostAction::Permit,
    };
    let policy = Policy {
        default: HostAction::Block,
        providers: vec![dlp, av],
        filters: vec![host],
        block_quic: true,
        strict: true,
    };
    assert_eq!(resolved.policy, policy);
    let control = Control {
        read: vec![Principal::Uid(1000), Principal::Gid(4), Principal::Uid(5), Principal::Gid(6)],
        register: vec![],
        administer: vec![Principal::Uid(0)],
    };
    assert_eq!(resolved.control, control);
    assert_eq!(resolved.notes, []);
    assert!(file.compile(&resolved, 1, &mut |_| {}).is_ok());
}

#[test]
fn protocols() {
    for (conditions, expected) in [
        ("protocol = 'tcp'", Some(Protocol::Tcp)),
        ("protocol = ['udp']", Some(Protocol::Udp)),
        ("protocol = ['udp', 'tcp']", None),
        ("not-protocol = 'udp'", Some(Protocol::Tcp)),
        ("protocol = ['udp', 'tcp'], not-protocol = 'tcp'", Some(Protocol::Udp)),
    ] {
        assert_eq!(matches(conditions), Match { protocol: expected, ..Match::default() }, "{conditions}");
    }
    let nothing = matches("not-protocol = ['udp', 'tcp']");
    assert_eq!(nothing.ports.only, Some(vec![]), "holds for nothing: {nothing:?}");
}

#[test]
fn destinations() {
    let found = matches("remote = ['10.0.0.0/8', '::1'], not-remote = '10.1.0.0/16'");
    let expected = (Some(vec![prefix("10.0.0.0", 8), prefix("::1", 128)]), vec![prefix("10.1.0.0", 16)]);
    assert_eq!(flat(&found.remote), expected);
    let found = matches("remote-port = [80, '443', '8000-8999'], not-remote-port = 8080");
    assert_eq!(flat(&found.ports), (Some(vec![80..=80, 443..=443, 8000..=8999]), vec![8080..=8080]));
    assert_eq!(matches("remote = []").remote.only, Some(vec![]), "an empty list is nothing, not anything");
}

#[test]
fn users_programs_and_places() {
    let found = matches("uid = ['alice', 7, '8', '2000-2999'], not-uid = 'root', gid = 'staff', not-gid = 3");
    assert_eq!(flat(&found.uids), (Some(vec![1000..=1000, 7..=7, 8..=8, 2000..=2999]), vec![0..=0]));
    assert_eq!(flat(&found.gids), (Some(vec![50..=50]), vec![3..=3]));
    let found = matches(
        "exe = '/usr/bin/curl', not-exe = ['/usr/bin/wget'], netns = ['blue', '/run/netns/blue'], not-netns = 'blue'",
    );
    let exe = |ino| Executable { dev: 8 << 20 | 1, ino };
    assert_eq!(flat(&found.exes), (Some(vec![exe(1)]), vec![exe(2)]));
    assert_eq!(flat(&found.netns), (Some(vec![7, 7]), vec![7]));
    let found = matches("cgroup = ['/user.slice/', '/'], not-cgroup = '//system.slice/dlp.service'");
    assert_eq!(flat(&found.cgroups), (Some(vec![line(&[20]), line(&[])]), vec![line(&[10, 100])]));
}

#[test]
fn via_is_the_position_of_a_provider() {
    let provider = |name: &str, rank: u16, conditions: &str| {
        format!(
            "[[provider]]\nname = '{name}'\nrank = {rank}\nlisten = '127.0.0.1:{rank}'\nowner = {{ uid = {rank} }}\n\
             [[provider.filter]]\nname = 'a'\naction = 'redirect'\nmatch = {{ {conditions} }}\n"
        )
    };
    let text = provider("b", 2, "via = 'a'") + &provider("a", 1, "") + &provider("c", 3, "not-via = ['a', 'b']");
    let (_, resolved) = read(&text).unwrap();
    let via = |at: usize| flat(&resolved.policy.providers[at].filters[0].matches.via);
    assert_eq!((via(0), via(1), via(2)), ((Some(vec![1]), vec![]), (None, vec![]), (None, vec![1, 0])));
}

#[test]
fn a_set_is_shared_by_all_who_use_it() {
    let text = r#"
        [sets.private]
        prefixes = ["192.168.0.0/16"]
        file = "private.txt"
        [sets.web]
        file = "ports.txt"
        [[filter]]
        name = "a"
        action = "permit"
        match = { remote = ["192.0.2.1", "@private", "192.0.2.2"], remote-port = "@web" }
        [[filter]]
        name = "b"
        action = "block"
        match = { not-remote = "@private" }
    "#;
    let (_, resolved) = read(text).unwrap();
    let [a, b] = &resolved.policy.filters[..] else { panic!() };
    let own = [prefix("192.0.2.1", 32), prefix("192.0.2.2", 32)];
    let private = [prefix("192.168.0.0", 16), prefix("10.0.0.0", 8), prefix("fd00::", 8)];
    assert_eq!(flat(&a.matches.remote).0.unwrap(), [&own[..], &private[..]].concat());
    assert_eq!(flat(&a.matches.ports).0.unwrap(), [443..=443, 8000..=8999]);
    assert!(Arc::ptr_eq(&a.matches.remote.only.as_ref().unwrap()[1], &b.matches.remote.except[0]));
}

#[test]
fn a_program_that_is_not_there_holds_for_nothing() {
    let found = matches("exe = '/no/such/program', not-exe = '/neither'");
    assert_eq!(flat(&found.exes), (Some(vec![]), vec![]));
    assert!(!found.exes.holds(|_| true));
}

#[test]
fn a_provider_whose_cgroup_is_not_there_is_dead_and_the_policy_can_be_used() {
    let provider = |name: &str, rank: u16, owner: &str| {
        format!(
            "[[provider]]\nname = '{name}'\nrank = {rank}\nlisten = '127.0.0.1:{rank}'\nowner = {owner}\n\
             [[provider.filter]]\nname = 'a'\naction = 'redirect'\n"
        )
    };
    let text = provider("a", 1, "[{ cgroup = '/no' }, { cgroup = '/neither' }]")
        + &provider("b", 2, "{ cgroup = '/no/more' }")
        + &provider("c", 3, "[{ cgroup = '/no/1' }, { uid = 'dlp' }]");
    let (file, resolved) = read(&text).unwrap();
    assert_eq!(resolved.dead, [0, 1]);
    assert_eq!(resolved.policy.providers[2].owners[1], Owner::Uid(990));
    assert!(file.compile(&resolved, 1, &mut |_| {}).is_ok());
}

#[test]
fn where_no_host_is_asked_nothing_is_known_and_nothing_is_wrong() {
    let text = r#"
        [control]
        read = "%nobody"
        [[provider]]
        name = "a"
        rank = 1
        listen = "127.0.0.1:1"
        owner = [{ uid = "somebody" }, { cgroup = "/elsewhere" }]
        [[provider.filter]]
        name = "a"
        action = "redirect"
        match = { uid = ["nobody", 7], exe = "/bin/a", cgroup = "/a", netns = "a", gid = "a" }
    "#;
    let (_, resolved) = PolicyFile::read("policy.toml", text, &Folder::of(&[]), &Nowhere).unwrap();
    assert_eq!(flat(&resolved.policy.providers[0].filters[0].matches.uids), (Some(vec![7..=7]), vec![]));
    assert_eq!(resolved.control.read, []);
    assert_eq!(resolved.dead, [], "it is not known whether it is");
    let [note] = &resolved.notes[..] else { panic!("{:?}", resolved.notes) };
    assert_eq!((note.id.name(), note.place.line), ("not-looked-up", 3));
    assert!(note.what.starts_with("8 names were not looked up: no host was asked"), "{}", note.what);
}

#[test]
fn parsing_alone_asks_no_host() {
    let text = "[[filter]]\nname = 'a'\naction = 'permit'\nmatch = { uid = 'nobody' }\n";
    let file = PolicyFile::parse("policy.toml", text, &folder()).unwrap();
    assert_eq!(file.resolve(&Somewhere).unwrap_err().findings().len(), 1);
}

#[test]
fn bytes_that_are_no_text_have_a_place() {
    let mistakes = PolicyFile::text("policy.toml", b"strict = true\nname = \"\xff\"\n".to_vec()).unwrap_err();
    let [finding] = mistakes.findings() else { panic!("{mistakes}") };
    assert_eq!((finding.place.line, finding.place.column), (2, 9));
    assert_eq!(PolicyFile::text("policy.toml", "ä".into()).unwrap(), "ä");
}
