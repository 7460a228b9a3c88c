//! What is wrong with a file.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::{Command, Stdio};

use carnet_e2e::Ground;
use carnet_e2e::command::carnet;
use carnet_e2e::programs::Scratch;
use carnet_e2e::raw::NOBODY;
use serde_json::Value;

use crate::{EXAMPLE, Said, says};

const WRONG: &str = r#"strict = "true"
[sets.private]
file = "private.txt"
[[filter]]
name = "a"
action = "permitt"
match = { remote = "@private", uid = "nobody here" }
"#;

/// A folder with a wrong policy.
fn wrong() -> (Scratch, String) {
    let scratch = Scratch::new();
    let policy = scratch.file("policy.toml");
    fs::write(&policy, WRONG.replace("nobody here", "rooot")).unwrap();
    fs::write(scratch.file("private.txt"), "10.0.0.0/8\n10.0.0.1/8\n").unwrap();
    (scratch, policy.to_str().unwrap().to_owned())
}

fn ids(object: &Value) -> Vec<(&str, u64)> {
    let findings = object["findings"].as_array().unwrap().iter();
    findings.map(|finding| (finding["id"].as_str().unwrap(), finding["line"].as_u64().unwrap())).collect()
}

#[test]
fn the_example_can_be_used_by_anybody_without_privilege() {
    let scratch = Scratch::new();
    let (program, policy) = (scratch.file("carnet"), scratch.file("policy.toml"));
    fs::copy(carnet(), &program).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    fs::copy(EXAMPLE, &policy).unwrap();
    let nobody = NOBODY.to_string();
    // A program that the example names is on some hosts, and is noted on the others.
    let notes = 5 + usize::from(!Path::new("/usr/bin/rsync").exists());
    for (command, expected) in [
        (&["check"][..], &*format!("can be used; {notes} notes\n")),
        (&["check", "--host", "none"], "can be used; 1 note\n"),
        (&["explain", "--to", "192.0.2.1:443", "--uid", "1000"], "2 services have it: \"dlp\", \"scanner\"\n"),
    ] {
        let mut unprivileged = Command::new("setpriv");
        unprivileged.args(["--reuid", &nobody, "--regid", &nobody, "--clear-groups", "--bounding-set", "-all"]);
        let said = Said::by(unprivileged.arg(&program).args(command).arg(&policy));
        assert!(said.code == 0 && said.output.ends_with(expected) && said.errors.is_empty(), "{said:?}");
    }
}

#[test]
fn all_mistakes_are_told_at_once_with_their_places() {
    let (scratch, policy) = wrong();
    let said = says(&["check", &policy]);
    let list = scratch.file("private.txt");
    for expected in [
        format!(
            "{policy}:1:10: mistake[wrong-type]: \"strict\" is true or false, not a text\n  1 | strict = \"true\"\n    |          ^^^^^^\n"
        ),
        format!("{policy}:6:10: mistake[unknown-word]: "),
        format!("{policy}:7:38: mistake[unknown-user]: this host has no user \"rooot\"\n"),
        "  do: did you mean \"root\"?\n".into(),
        format!("{}:2:1: mistake[wrong-prefix]: 10.0.0.1/8 has bits behind its length\n", list.display()),
        format!("carnet check: {policy} cannot be used; 4 mistakes. Warnings are looked for when there is none\n"),
    ] {
        assert!(said.output.contains(&expected), "{expected}\n{}", said.output);
    }
    assert_eq!((said.code, &said.errors[..]), (1, ""));

    let said = says(&["check", "--json", &policy]);
    let object = said.object();
    assert_eq!(ids(&object), [("wrong-type", 1), ("unknown-word", 6), ("unknown-user", 7), ("wrong-prefix", 2)]);
    assert_eq!((said.code, &object["usable"], &object["file"]), (1, &false.into(), &Value::from(&policy[..])));
    let first = object["findings"][0].as_object().unwrap();
    let names: Vec<_> = first.keys().map(String::as_str).collect();
    assert_eq!(names, ["also", "column", "do", "file", "id", "level", "line", "span", "what"]);
    assert_eq!(first["span"], serde_json::json!([9, 15]));
    assert_eq!(&WRONG[9..15], "\"true\"");
}

#[test]
fn a_warning_is_no_mistake_unless_it_is_asked_to_be() {
    let scratch = Scratch::new();
    let policy = scratch.file("policy.toml");
    fs::write(&policy, "[sets.a]\nports = 1\n").unwrap();
    let policy = policy.to_str().unwrap();
    let said = says(&["check", policy]);
    assert!(said.code == 0 && said.output.ends_with("can be used; 1 warning\n"), "{said:?}");
    assert_eq!(says(&["check", "--deny-warnings", policy]).code, 1);
    fs::write(policy, "").unwrap();
    assert_eq!(says(&["check", "--deny-warnings", policy]).code, 0);
}

#[test]
fn what_cannot_be_read_is_no_mistake_of_the_policy() {
    let scratch = Scratch::new();
    let policy = scratch.file("no/such/policy.toml");
    let said = says(&["check", policy.to_str().unwrap()]);
    assert_eq!((said.code, &said.output[..]), (3, ""));
    assert!(said.errors.contains("cannot read") && said.errors.contains("No such file"), "{said:?}");
    assert_eq!(says(&["check"]).code, 2);

    let policy = scratch.file("binary.toml");
    fs::write(&policy, b"strict = \xff\n").unwrap();
    let said = says(&["check", policy.to_str().unwrap()]);
    assert!(
        said.code == 1 && said.output.contains("binary.toml:1:10: mistake[syntax]: this is no text in UTF-8"),
        "{said:?}"
    );
    fs::write(&policy, "[sets.a]\nfile = \".\"\n[sets.b]\nfile = \"/dev/zero\"\n").unwrap();
    let said = says(&["check", policy.to_str().unwrap()]);
    assert_eq!(said.output.matches("mistake[unreadable-file]").count(), 2, "{said:?}");
}

#[test]
fn cgroups_and_programs_of_this_host_are_found() {
    let ground = Ground::new();
    let scratch = Scratch::new();
    let cgroup = &ground.governed;
    let level = cgroup.level() as usize;
    let path = cgroup.path().to_str().unwrap();
    let below = path.split('/').rev().take(level).collect::<Vec<_>>().into_iter().rev().collect::<Vec<_>>().join("/");
    assert_eq!(fs::metadata(path).unwrap().ino(), cgroup.id());
    let policy = scratch.file("policy.toml");
    let program = scratch.file("program");
    fs::write(&program, "").unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o777)).unwrap();
    let write = |cgroup: &str, program: &str| {
        let text = format!(
            "[[filter]]\nname = \"a\"\naction = \"block\"\nmatch = {{ cgroup = \"{cgroup}\", exe = \"{program}\" }}\n"
        );
        fs::write(&policy, text).unwrap();
        says(&["check", "--json", policy.to_str().unwrap()])
    };
    let program = program.to_str().unwrap();
    let said = write(&format!("/{below}"), program);
    let object = said.object();
    let found = ids(&object);
    assert!(
        found.contains(&("forgeable-executable", 4)) && found.iter().all(|(id, _)| *id == "forgeable-executable"),
        "{said:?}"
    );
    let said = write(&format!("/{below}/not-there"), &format!("{program}-not-there"));
    assert_eq!(ids(&said.object()), [("no-cgroup", 4), ("no-executable", 4)]);
}

#[test]
fn a_reader_who_goes_away_is_no_failure() {
    let mut child = Command::new(carnet());
    child.args(["check", EXAMPLE]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = child.spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), &output.stderr[..]), (Some(0), &b""[..]));
}

#[test]
fn a_policy_is_read_from_standard_input() {
    let scratch = Scratch::new();
    fs::write(scratch.file("private.txt"), "10.0.0.0/8\n").unwrap();
    let policy = scratch.file("policy.toml");
    fs::write(&policy, WRONG.replace("nobody here", "rooot")).unwrap();
    let mut command = Command::new(carnet());
    command.args(["check", "--json", "-"]).stdin(fs::File::open(&policy).unwrap());
    let said = Said::by(command.current_dir(scratch.file("")));
    let object = said.object();
    assert_eq!(ids(&object), [("wrong-type", 1), ("unknown-word", 6), ("unknown-user", 7)], "{said:?}");
    assert_eq!((said.code, &object["file"]), (1, &"-".into()));
}
