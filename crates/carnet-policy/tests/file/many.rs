//! Large files, and policies with many services.

use std::fmt::Write;
use std::time::Instant;

use carnet_policy::file::{Id, PolicyFile};

use crate::stage::{Folder, Somewhere, findings};

fn provider(number: usize, conditions: &str) -> String {
    format!(
        "[[provider]]\nname = 'p{number}'\nrank = {number}\nlisten = ['127.0.0.1:{port}', '[::1]:{port}']\nowner = {{ uid = {} }}\n\
         [[provider.filter]]\nname = 'a'\naction = 'redirect'\nmatch = {{ {conditions} }}\n",
        50_000 + number,
        port = 20_000 + number
    )
}

/// What is said of so many providers with these conditions, by their number from 1.
fn said(count: usize, conditions: impl Fn(usize) -> String) -> Vec<String> {
    let text: String = (1..=count).map(|number| provider(number, &conditions(number))).collect();
    findings(&text).into_iter().map(|finding| format!("{}: {}", finding.id.name(), finding.what)).collect()
}

#[test]
fn sixteen_services_have_room_and_seventeen_have_not() {
    assert_eq!(said(16, |_| String::new()), Vec::<String>::new());
    assert_eq!(
        said(17, |_| String::new()),
        [
            "too-many-services: 17 services could have one connection (\"p1\", \"p2\", \"p3\" and so on), for instance one \
          to port 443, and a record has room for 16: the next one's redirect is refused"
        ]
    );
}

#[test]
fn services_that_are_about_different_connections_are_not_counted_together() {
    let halves = |number: usize| if number.is_multiple_of(2) { 1 } else { 0 };
    for conditions in [
        |_, half| format!("remote = '{half}.0.0.0/8'"),
        |_, half| format!("remote-port = [{}, 9]", 80 + half),
        |_, half| format!("uid = '{half}000-{half}999'"),
        |_, half| format!("gid = {half}"),
        |_, half| if half == 0 { "cgroup = '/user.slice'".to_owned() } else { "cgroup = '/system.slice'".to_owned() },
        |_, half| {
            if half == 0 { "cgroup = '/system.slice'".to_owned() } else { "not-cgroup = '/system.slice'".to_owned() }
        },
        |_, half| if half == 0 { "exe = '/usr/bin/curl'".to_owned() } else { "exe = '/usr/bin/wget'".to_owned() },
        |_, half| if half == 0 { "netns = 'blue'".to_owned() } else { "not-netns = 'blue'".to_owned() },
    ] as [fn(usize, usize) -> String; 8]
    {
        // Ports have one that is common to both halves.
        let expected = if conditions(1, 0).contains("port") { 1 } else { 0 };
        let said = said(20, |number| conditions(number, halves(number)));
        assert_eq!(said.len(), expected, "{}: {said:#?}", conditions(1, 0));
    }
}

#[test]
fn a_connection_that_all_are_about_is_named() {
    let said = said(20, |number| {
        format!("remote-port = '{}-200', remote = ['10.0.0.0/8', '192.0.{number}.0/24']", 100 + number)
    });
    let [said] = &said[..] else { panic!("{said:?}") };
    assert!(said.contains("20 services") && said.contains("for instance one to 10.0.0.0 port 120"), "{said}");
}

#[test]
fn the_longest_chain_is_found_among_overlapping_ones() {
    // At port 120 all are about the port, and eighteen of them about address 10.
    let said = said(20, |number| {
        format!("remote-port = '{}-400', remote = '{}.0.0.0/8'", 100 + number, if number <= 18 { 10 } else { 11 })
    });
    let [said] = &said[..] else { panic!("{said:?}") };
    assert!(said.contains("18 services") && said.contains("10.0.0.0 port 120"), "{said}");
}

#[test]
fn a_million_prefixes_are_read_in_a_moment_and_the_wrong_one_is_found() {
    let mut prefixes = String::new();
    for number in 0..1_000_000_u32 {
        writeln!(prefixes, "{}/28", std::net::Ipv4Addr::from_bits(number << 4)).unwrap();
    }
    let text = "[sets.big]\nfile = 'big.txt'\n[[filter]]\nname = 'a'\naction = 'block'\nmatch = { remote = '@big' }\n";
    let read =
        |prefixes: String| PolicyFile::read("policy.toml", text, &Folder([("big.txt", prefixes)].into()), &Somewhere);

    let start = Instant::now();
    let (_, resolved) = read(prefixes.clone()).unwrap();
    let took = start.elapsed();
    assert_eq!(resolved.policy.filters[0].matches.remote.only.as_ref().unwrap()[0].len(), 1_000_000);
    // A tenth of it on an idle machine.
    assert!(took.as_secs() < 5, "{took:?}");

    let mistakes = read(prefixes + "10.0.0.1/8\n").unwrap_err();
    let [finding] = mistakes.findings() else { panic!("{mistakes}") };
    assert_eq!((finding.id, finding.place.line, &finding.place.file[..]), (Id::WrongPrefix, 1_000_001, "big.txt"));
}

#[test]
fn the_largest_policy_is_read_and_one_more_is_a_mistake() {
    let mut text = String::new();
    for number in 1..=255 {
        text += &provider(number, "remote = '192.0.2.1'");
        for filter in 1..16 {
            writeln!(
                text,
                "[[provider.filter]]\nname = 'f{filter}'\naction = 'skip'\nmatch = {{ remote-port = {filter} }}"
            )
            .unwrap();
        }
    }
    for filter in 0..16 {
        writeln!(
            text,
            "[[filter]]\nname = 'h{filter}'\naction = 'block'\nmatch = {{ remote-port = {filter}, uid = 1 }}"
        )
        .unwrap();
    }
    let start = Instant::now();
    let said = findings(&text);
    assert!(start.elapsed().as_secs() < 10, "{:?}", start.elapsed());
    let [finding] = &said[..] else { panic!("{said:#?}") };
    assert_eq!(finding.id, Id::TooManyServices);

    let mistakes = findings(&format!("{text}{}", provider(256, "")));
    let said: Vec<_> = mistakes.iter().map(|finding| (&finding.what[..], finding.place.line)).collect();
    let last = text.lines().count();
    assert_eq!(
        said,
        [("256 providers, at most 255 fit", last + 2), ("4097 filters in all, at most 4096 fit", last + 7)]
    );
}
