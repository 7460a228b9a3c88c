//! What is added to a file, and what a daemon needs to know to follow a host.

use carnet_policy::file::{Account, Answer, CgroupAt, ExecutableAt, Finding, Host, PolicyFile};
use carnet_policy::{Condition, Executable, Policy, Prefix};

use crate::stage::{Somewhere, folder};

const FILE: &str = r#"
[sets.private]
prefixes = ["192.168.0.0/16"]
[sets.listed]
file = "private.txt"
[sets.web]
ports = [80, 443]

[[provider]]
name = "dlp"
rank = 10
listen = "127.0.0.1:15001"
owner = { uid = "dlp" }
[[provider.filter]]
name = "web"
action = "redirect"
match = { remote = "@private" }
"#;

const ADDED: &str = r#"
[[provider]]
name = "inspect"
rank = 20
listen = "127.0.0.1:15002"
owner = { uid = "av" }
[[provider.filter]]
name = "all"
action = "redirect"
match = { remote = ["@private", "@listed"], remote-port = "@web", via = "dlp" }

[[filter]]
name = "host"
action = "block"
match = { uid = "alice" }
"#;

fn file() -> PolicyFile {
    PolicyFile::parse("policy.toml", FILE, &folder()).unwrap()
}

/// Where each is, and what is said.
fn said(findings: &[Finding]) -> Vec<String> {
    let line = |finding: &Finding| format!("{}:{}: {}", finding.place.file, finding.place.line, finding.what);
    findings.iter().map(line).collect()
}

#[test]
fn what_is_added_stands_behind_what_the_file_has() {
    let policy = file().extend("one", ADDED).unwrap().resolve(&Somewhere).unwrap().policy;
    let names: Vec<_> = policy.providers.iter().map(|provider| &*provider.name).collect();
    assert_eq!(names, ["dlp", "inspect"]);
    let matches = &policy.providers[1].filters[0].matches;
    let lists = matches.remote.only.as_ref().unwrap();
    let lengths: Vec<_> = lists.iter().map(|list| list.len()).collect();
    assert_eq!(lengths, [1, 2], "of the file's sets, and the one from a file is read for it");
    let shared: &[Prefix] = &policy.providers[0].filters[0].matches.remote.only.as_ref().unwrap()[0];
    assert!(std::ptr::eq(shared, &*lists[0]), "a set is there once");
    assert_eq!((&matches.ports, &matches.via), (&Condition::only([80..=80, 443..=443]), &Condition::only([0])));
    assert_eq!(policy.filters[0].name, "host");
    policy.compile(1).unwrap();

    // And the file is as it was.
    assert_eq!(file().resolve(&Somewhere).unwrap().policy.providers.len(), 1);
    let more = ADDED.replace("inspect", "more").replace("20", "30").replace("15002", "15003").replace("\"av\"", "7");
    let all = file().extend("one", ADDED).unwrap().extend("two", &more).unwrap().resolve(&Somewhere).unwrap();
    assert_eq!((all.policy.providers.len(), all.policy.filters.len()), (3, 2));
}

#[test]
fn nothing_can_be_added() {
    for text in ["", "\u{feff}", "# nothing\n"] {
        let same = file().extend("one", text).unwrap().resolve(&Somewhere).unwrap();
        assert_eq!(same.policy, file().resolve(&Somewhere).unwrap().policy);
    }
    let marked = file().extend("one", &format!("\u{feff}{ADDED}")).unwrap();
    assert_eq!(marked.resolve(&Somewhere).unwrap().policy.providers.len(), 2);
}

#[test]
fn mistakes_in_what_is_added_have_places_in_it() {
    let provider = "[[provider]]\nname = \"x\"\nrank = 20\nlisten = \"127.0.0.1:15002\"\nowner = { uid = \"av\" }\n";
    for (text, expected) in [
        ("default = \"block\"\n", "one:1: what is added to a policy has no key \"default\""),
        ("[sets.own]\nfile = \"private.txt\"\n", "one:1: what is added to a policy has no key \"sets\""),
        ("\n[[filter]]\nname = 7\naction = \"block\"\n", "one:3: \"name\" is a text, not a number"),
        ("\n[[filter]]\nname = \"a\"\n", "one:2: a filter of the host needs \"action\""),
        ("\nname = \n", "one:2: "),
        (
            "[[filter]]\nname = \"a\"\naction = \"block\"\nmatch = { remote = \"@privat\" }\n",
            "one:4: there is no set \"privat\"",
        ),
        (
            "[[filter]]\nname = \"a\"\naction = \"block\"\nmatch = { remote-port = \"@listed\" }\n",
            "one:4: the set \"listed\" is of prefixes, and ports are meant here",
        ),
        (&provider.replace("\"x\"", "\"dlp\""), "one:2: two providers are named \"dlp\""),
    ] {
        let mistakes = file().extend("one", text).unwrap_err();
        let [said] = &said(mistakes.findings())[..] else { panic!("{text}: {mistakes}") };
        assert!(said.starts_with(expected), "{text}: {said}");
    }
    for (text, expected) in [
        (provider.replace("20", "10"), "one:3: two providers have rank 10"),
        (provider.replace("15002", "15001"), "one:4: 127.0.0.1:15001 is given twice"),
        (provider.replace("\"av\"", "990"), "one:5: this owner is given twice"),
        (provider.replace("\"av\"", "\"nobody-here\""), "one:5: this host has no user \"nobody-here\""),
    ] {
        let mistakes = file().extend("one", &text).unwrap().resolve(&Somewhere).unwrap_err();
        let [said] = &said(mistakes.findings())[..] else { panic!("{text}: {mistakes}") };
        assert!(said.starts_with(expected), "{text}: {said}");
    }
}

#[test]
fn of_two_that_cannot_be_together_the_later_is_told() {
    let twice = file().extend("one", ADDED).unwrap().extend("two", ADDED).unwrap_err();
    let [finding] = twice.findings() else { panic!("{twice}") };
    assert_eq!((&*finding.place.file, &*finding.also[0].0.file), ("two", "one"));
}

#[test]
fn warnings_and_notes_of_what_is_added_have_places_in_it() {
    let text = ADDED.replace("match = { uid = \"alice\" }", "match = { exe = \"/no/such/program\" }");
    let file = file().extend("one", &text.replace("\"av\"", "0")).unwrap();
    let resolved = file.resolve(&Somewhere).unwrap();
    assert_eq!((&*resolved.notes[0].place.file, resolved.notes[0].place.line), ("one", 15));
    let warnings = file.warnings(&resolved, &Somewhere);
    assert!(warnings.iter().any(|it| it.id.name() == "wide-owner" && it.place.file == "one"), "{warnings:#?}");
    assert!(!warnings.iter().any(|it| it.id.name() == "unused-set"), "what is added uses them: {warnings:#?}");
}

fn exes(policy: &Policy) -> &Condition<Executable> {
    &policy.filters[0].matches.exes
}

#[test]
fn a_program_that_was_at_a_path_is_still_meant_while_it_is_kept() {
    let text = "[[filter]]\nname = 'a'\naction = 'block'\nmatch = { exe = ['/usr/bin/curl', '/usr/bin/gone'] }\n";
    let file = PolicyFile::parse("policy.toml", text, &folder()).unwrap();
    let at = |ino| Executable { dev: 8 << 20 | 1, ino };
    let resolved = file.resolve(&Somewhere).unwrap();
    assert_eq!(resolved.executables().collect::<Vec<_>>(), [("/usr/bin/curl", at(1))]);
    assert_eq!(resolved.watched.executables[1], ("/usr/bin/gone".to_owned(), None));

    let kept = [("/usr/bin/curl", 77), ("/usr/bin/curl", 1), ("/usr/bin/gone", 78), ("/usr/bin/wget", 79)];
    let kept = kept.map(|(path, ino)| (path.to_owned(), at(ino)));
    let resolved = file.resolve_keeping(&Somewhere, &kept).unwrap();
    assert_eq!(exes(&resolved.policy), &Condition::only([at(1), at(77), at(78)]));
    assert_eq!(resolved.executables().collect::<Vec<_>>(), [("/usr/bin/curl", at(1))], "what is there now");
    resolved.policy.compile(1).unwrap();
}

#[test]
fn cgroups_namespaces_and_files_that_can_change_are_known() {
    let text = r#"
        [sets.private]
        file = "private.txt"
        [[filter]]
        name = "a"
        action = "block"
        match = { remote = "@private", cgroup = ["/user.slice", "/none"], netns = "blue", not-netns = "green" }
    "#;
    let file = PolicyFile::parse("policy.toml", text, &folder()).unwrap();
    assert_eq!(file.files().collect::<Vec<_>>(), [std::path::Path::new("private.txt")]);
    let watched = file.resolve(&Somewhere).unwrap().watched;
    let found = |all: &[(String, Option<u64>)]| all.iter().map(|(_, id)| *id).collect::<Vec<_>>();
    assert_eq!((found(&watched.cgroups), found(&watched.netns)), (vec![None, Some(20)], vec![Some(7), None]));
}

/// A host whose source of users and groups does not answer.
struct Silent;

impl Host for Silent {
    fn uid(&self, _: &str) -> Answer<u32> {
        Answer::Unasked("the directory is down".into())
    }

    fn gid(&self, _: &str) -> Answer<u32> {
        Answer::Unasked("the directory is down".into())
    }

    fn executable(&self, path: &str) -> Answer<ExecutableAt> {
        Somewhere.executable(path)
    }

    fn cgroup(&self, path: &str) -> Answer<CgroupAt> {
        Somewhere.cgroup(path)
    }

    fn netns(&self, name: &str) -> Answer<u64> {
        Somewhere.netns(name)
    }

    fn account(&self, _: u32) -> Option<Account> {
        None
    }

    fn users(&self) -> Vec<String> {
        Vec::new()
    }

    fn groups(&self) -> Vec<String> {
        Vec::new()
    }
}

#[test]
fn users_that_could_not_be_asked_for_are_kept_apart() {
    let text = "[[filter]]\nname = 'a'\naction = 'block'\n\
        match = { uid = ['alice', 7], not-gid = 'staff', not-exe = '/secret/tool' }\n";
    let file = PolicyFile::parse("policy.toml", text, &folder()).unwrap();
    let resolved = file.resolve(&Silent).unwrap();
    let expected = [
        "policy.toml:4: the user \"alice\" was not looked up: the directory is down",
        "policy.toml:4: the group \"staff\" was not looked up: the directory is down",
    ];
    assert_eq!(said(&resolved.unasked), expected, "programs that root cannot see are only notes");
    assert_eq!(resolved.notes.len(), 2, "one for each reason: {:#?}", resolved.notes);
    assert_eq!(file.resolve(&Somewhere).unwrap().unasked, []);
}
