//! How answers look, and which exit code they have.

use std::os::unix::process::CommandExt;
use std::process::Stdio;

use carnet_control::{EventKind, Flow, FlowLine, Problem, ProblemKind, Provider, ProviderState};
use carnet_e2e::command::{Run, finish};
use carnet_e2e::sockets::until;
use serde_json::{Value, json};

use crate::ask;
use crate::memory::{event, flow};
use crate::scene::Scene;

#[test]
fn status_and_its_object() {
    let scene = Scene::new();
    let text = scene.told(&["status"]);
    for line in ["engine     00000000000000aa", "governs    /, the whole host", "providers  none", "flows      0 open"]
    {
        assert!(text.lines().any(|of| of == line), "{line}: {text}");
    }
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    let object: Value = serde_json::from_str(&scene.told(&["status", "--json"])).unwrap();
    assert_eq!((&object["instance"], &object["flows"]), (&"00000000000000aa".into(), &0.into()));
}

#[test]
fn providers_are_a_table_and_an_object() {
    let scene = Scene::new();
    assert_eq!(scene.told(&["providers"]), "there are no providers\n");
    scene.backend.state(|state| state.providers.push(provider("dlp", ProviderState::Dead)));
    let expected = "\
RANK  NAME  STATE  FLOWS  ON DEAD  WHERE AND WHOSE
  10  dlp   dead       3  closed   127.0.0.1:15001
                                   /system.slice/dlp.service
";
    assert_eq!(scene.told(&["providers"]), expected);
    let object: Value = serde_json::from_str(&scene.told(&["providers", "--json"])).unwrap();
    assert_eq!(object["providers"][0]["state"], "dead");
    assert!(scene.told(&["status"]).contains("\n           dlp: nobody listens\n"));
}

#[test]
fn a_policy_is_applied_with_the_lists_it_has_in_files() {
    let scene = Scene::new();
    scene.file("corp.txt", "# ours\n10.0.0.0/8\n2001:db8::/32\n");
    let text = "[sets.corp]\nfile = \"corp.txt\"\n\n[[filter]]\nname = \"a\"\nmatch = { remote = \"@corp\" }\naction = \"block\"\n";
    let file = scene.file("policy.toml", text);
    let told = scene.told(&["apply", file.to_str().unwrap()]);
    assert_eq!(told, "policy 1 is in force: 0 providers, 0 filters, 0 prefixes\n");
    let expected = text.replace("file = \"corp.txt\"", "prefixes = [\"10.0.0.0/8\", \"2001:db8::/32\"]");
    assert_eq!(scene.told(&["policy"]), expected);
    let object: Value = serde_json::from_str(&scene.told(&["policy", "--json"])).unwrap();
    assert_eq!(object, json!({ "policy": expected }));

    let told = scene.told(&["apply", "--dry-run", file.to_str().unwrap()]);
    assert!(told.starts_with("it can be put in force, and was not: "), "{told}");
    let object: Value = serde_json::from_str(&scene.told(&["apply", "--json", file.to_str().unwrap()])).unwrap();
    assert_eq!((&object["applied"], &object["policy"]["generation"]), (&true.into(), &2.into()));
}

#[test]
fn a_policy_comes_from_standard_input_too() {
    let scene = Scene::new();
    let mut run = Run::start(&mut scene.command(&["apply", "-"]));
    run.say("default = \"block\"");
    run.close_input();
    assert_eq!(run.end().code, 0);
    assert_eq!(scene.told(&["policy"]), "default = \"block\"\n");
}

#[test]
fn mistakes_are_told_as_check_tells_them_and_nothing_is_sent() {
    let scene = Scene::new();
    let file = scene.file("policy.toml", "defualt = \"block\"\n[[filter]]\nname = \"a\"\naction = \"blok\"\n");
    let file = file.to_str().unwrap();
    let applied = scene.ask(&["apply", file]);
    let checked = finish(&mut ask(&["check", file]));
    let findings = |text: &str| text.rsplit_once("\n\n").unwrap().0.to_owned();
    assert_eq!((applied.code, checked.code), (1, 1));
    assert_eq!(findings(&applied.output), findings(&checked.output));
    let last = applied.output.lines().last().unwrap();
    assert_eq!(last, format!("carnet: {file} cannot be used; 2 mistakes. What was in force stays in force"));
    assert_eq!(scene.backend.state(|state| state.applied.len()), 0);

    let problem = scene.ask(&["apply", "--json", file]);
    let object: Value = serde_json::from_str(&problem.output).unwrap();
    assert_eq!((problem.code, &object["mistakes"][0]["id"]), (1, &"unknown-key".into()));
    assert_eq!(object["mistakes"][1]["line"], 4);
}

#[test]
fn what_the_daemon_finds_wrong_is_told_with_the_line() {
    let scene = Scene::new();
    let mistake = json!({"id": "unknown-user", "level": "mistake", "line": 2, "column": 8, "span": [22, 27],
        "message": "this host has no user \"alcie\"", "suggestion": "did you mean \"alice\"?"});
    let problem = Problem::new(ProblemKind::Mistakes, "no");
    let problem = problem.with_mistakes(vec![serde_json::from_value(mistake).unwrap()]);
    let file = scene.file("policy.toml", "# a policy of alice's\n# uid = 7\n");
    scene.backend.state(|state| state.fail = Some(problem.clone()));
    let applied = scene.ask(&["apply", file.to_str().unwrap()]);
    let expected = format!(
        "{0}:2:1: mistake[unknown-user]: this host has no user \"alcie\"\n  2 | # uid = 7\n    | ^^^^^\n  do: did you mean \
         \"alice\"?\n\ncarnet: {0} cannot be used; 1 mistake. What was in force stays in force\n",
        file.display()
    );
    assert_eq!((applied.code, applied.output), (1, expected));

    // Of the daemon's own file there is no line here.
    scene.backend.state(|state| state.fail = Some(problem));
    let reloaded = scene.ask(&["reload"]);
    let expected = "2:8: mistake[unknown-user]: this host has no user \"alcie\"\n  do: did you mean \"alice\"?\n\n\
                    carnet: the daemon's file cannot be used; 1 mistake. What was in force stays in force\n";
    assert_eq!((reloaded.code, &reloaded.output[..]), (1, expected));
}

#[test]
fn no_is_1_and_a_failure_is_3() {
    let scene = Scene::new();
    for (kind, code) in [
        (ProblemKind::Conflict, 1),
        (ProblemKind::NotFound, 1),
        (ProblemKind::Failed, 3),
        (ProblemKind::Unavailable, 3),
    ] {
        for command in ["providers", "policy", "reload"] {
            scene.backend.state(|state| state.fail = Some(Problem::new(kind, "for a reason")));
            let ended = scene.ask(&[command]);
            assert_eq!((ended.code, &ended.errors[..]), (code, "carnet: for a reason\n"), "{command}, {kind:?}");
        }
    }
    assert_eq!(scene.ask(&["status", "more"]).code, 2);
}

#[test]
fn a_user_without_a_role_is_told_what_to_do() {
    let scene = Scene::new();
    let ended = finish(scene.command(&["status"]).uid(65534).gid(65534));
    assert_eq!(ended.code, 3, "{ended:?}");
    assert!(ended.errors.contains("uid 65534") && ended.errors.contains("ask as root"), "{ended:?}");
}

#[test]
fn open_flows_are_listed_as_in_the_log() {
    let scene = Scene::new();
    scene.backend.state(|state| state.open = vec![flow(7), flow(8)]);
    let expected = "00:00:00.000  curl[7]  192.0.2.7:443  1 B up, 2 B down  -  open  direct\n";
    let told = scene.told(&["flows"]);
    assert_eq!(told, expected.to_owned() + &expected.replace("[7]", "[8]"));
    let objects = scene.told(&["flows", "--json"]);
    let all: Vec<Value> = objects.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((all.len(), &all[1]["type"], &all[1]["pid"]), (2, &"flow".into(), &8.into()));
}

#[test]
fn flows_are_followed_until_the_daemon_ends() {
    let scene = Scene::new();
    scene.backend.state(|state| state.open = vec![flow(7)]);
    let mut run = Run::start(&mut scene.command(&["flows", "--follow"]));
    assert!(run.line().contains("curl[7]"));
    let ended = Flow { pid: 9, duration_ms: Some(3.25), ..flow(9) };
    scene.backend.flows.send(FlowLine::Flow(ended.into()).into()).unwrap();
    assert_eq!(run.line(), "00:00:00.000  curl[9]  192.0.2.7:443  1 B up, 2 B down  3.2 ms  open  direct");
    scene.backend.flows.send(FlowLine::Warning { message: "look".into() }.into()).unwrap();
    assert_eq!(run.line(), "carnet: look");
    scene.told(&["down"]);
    let ended = run.end();
    assert_eq!((ended.code, &ended.errors[..]), (3, "carnet: the daemon has ended the answer: the daemon is ending\n"));
}

#[test]
fn events_are_followed_and_a_reader_who_leaves_is_no_error() {
    let scene = Scene::new();
    let mut run = Run::start(&mut scene.command(&["events"]));
    let say = |message: &str| until("a reader", || scene.backend.events.send(event(message).into()).ok());
    say("the first");
    assert_eq!(run.line(), "00:00:00  warning        the first");
    let dead = carnet_control::Event { event: EventKind::Provider, ..event("dlp is dead") };
    scene.backend.events.send(dead.into()).unwrap();
    assert_eq!(run.line(), "00:00:00  provider       dlp is dead");
    drop(run);

    let mut command = scene.command(&["events", "--json"]);
    let mut process = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(process.stdout.take());
    let ended = until("it to see that nobody reads", || {
        let _ = scene.backend.events.send(event("to nobody").into());
        process.try_wait().unwrap()
    });
    assert!(ended.success(), "{ended}");
}

#[test]
fn down_says_what_was_removed_and_waits_for_the_end() {
    let scene = Scene::new();
    assert_eq!(scene.told(&["down"]), "removed 9 programs\ncarnet is down\n");
    assert_eq!(scene.ask(&["status"]).code, 3, "nobody listens any more");
    let scene = Scene::new();
    assert_eq!(scene.told(&["down", "--json"]), "{\"removed\":[\"9 programs\"]}\n");
}

fn provider(name: &str, state: ProviderState) -> Provider {
    let mut provider: Provider = serde_json::from_value(json!({"name": name, "rank": 10, "handle": 1,
        "listen": ["127.0.0.1:15001"], "records": "aware", "on-dead": "closed", "direct": false,
        "owner": [{"cgroup": "/system.slice/dlp.service"}], "filters": 3, "state": "alive", "session": null, "flows": 3}))
    .unwrap();
    provider.state = state;
    provider
}
