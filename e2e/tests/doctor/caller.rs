//! Who asks: without privilege, with some of it, in namespaces.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;

use carnet_e2e::Sandbox;
use carnet_e2e::command::carnet;
use carnet_e2e::programs::Scratch;
use carnet_e2e::raw::NOBODY;
use carnet_engine::cgroup::Hierarchy;
use serde_json::Value;

use crate::{asked, doctor};

#[test]
fn root_gets_an_answer() {
    let answer = doctor(&[]);
    answer.assert_says("programs-load", "ok", &[]);
    answer.assert_says("capabilities", "ok", &[]);
    answer.assert_says("cgroup2", "ok", &[Hierarchy::find().unwrap().mount().to_str().unwrap()]);
    answer.assert_says("cgroups-creatable", "ok", &[]);
    // Where there are both versions, nothing is to be done about it.
    assert!(answer.all("cgroup2-hybrid").iter().all(|finding| finding["level"] == "ok"));
    assert_eq!(answer.code, 0, "{:#}", answer.report);
}

#[test]
fn nobody_is_told_what_could_not_be_looked_at() {
    let (_scratch, program) = for_everybody();
    let nobody = NOBODY.to_string();
    let mut command = Command::new("setpriv");
    command.args(["--reuid", &nobody, "--regid", &nobody, "--clear-groups"]).arg(program).arg("doctor");
    let answer = asked(&mut command);
    let missing = answer.assert_says("capabilities-missing", "warning", &["CAP_BPF", "CAP_NET_ADMIN"]);
    assert!(missing["do"].as_str().unwrap().contains("sudo"));
    for hidden in ["programs-untried", "programs-hidden", "nat-hidden", "cgroups-not-creatable"] {
        answer.assert_says(hidden, "warning", &[]);
    }
    // What everybody may see is there.
    for seen in ["cgroup2", "open-files", "port-range"] {
        assert!(answer.has(seen, "ok"), "{seen}: {:#}", answer.report);
    }
    assert_eq!((answer.code, &answer.report["worst"]), (3, &"warning".into()), "neither yes nor no");
}

#[test]
fn root_without_capabilities_is_a_problem() {
    let without = "-bpf,-perfmon,-sys_admin";
    let mut command = Command::new("setpriv");
    command.args(["--bounding-set", without, "--inh-caps", without]).arg(carnet()).arg("doctor");
    let answer = asked(&mut command);
    answer.assert_says("capabilities-missing", "problem", &["root", "CAP_BPF", "CAP_PERFMON"]);
    assert_eq!(answer.code, 1);
}

/// The three capabilities that Carnet needs are enough for all of this but one thing, which is told.
#[test]
fn without_sys_admin_programs_have_their_names_and_other_engines_are_hidden() {
    let sandbox = Sandbox::new();
    let place = sandbox.app_cgroup().path().to_str().unwrap();
    let without = "-sys_admin";
    let mut command = Command::new("setpriv");
    command.args(["--bounding-set", without, "--inh-caps", without]).arg(carnet());
    let answer = asked(command.args(["doctor", "--cgroup", place]));
    answer.assert_says("capabilities", "ok", &[]);
    let hidden = answer.assert_says("engines-hidden", "warning", &["other engines"]);
    assert!(hidden["do"].as_str().unwrap().contains("CAP_SYS_ADMIN"), "{hidden:#}");
    let engine = answer.assert_says("other-engine", "note", &["carnet_connect4", "carnet_sockops"]);
    assert_eq!(engine["details"]["programs"][0]["uid"], 0);
    assert_eq!(answer.code, 0);

    let all = doctor(&["--cgroup", place]);
    assert_eq!(all.all("engines-hidden").len(), 0);
    assert_eq!(names(all.one("other-engine")), names(engine), "root is told the same ones");
}

fn names(finding: &Value) -> Vec<&str> {
    let programs = finding["details"]["programs"].as_array().unwrap();
    programs.iter().map(|program| program["name"].as_str().unwrap()).collect()
}

#[test]
fn a_user_namespace_is_a_problem_whatever_it_says_of_capabilities() {
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user"]).arg(carnet()).arg("doctor");
    let answer = asked(&mut command);
    answer.assert_says("user-namespace", "problem", &["uid_map"]);
    answer.assert_says("capabilities", "ok", &[]);
    answer.assert_says("programs-untried", "warning", &["user namespace"]);
    assert_eq!(answer.code, 1);
}

#[test]
fn no_new_privileges_are_told() {
    let mut command = Command::new("setpriv");
    let answer = asked(command.arg("--no-new-privs").arg(carnet()).arg("doctor"));
    answer.assert_says("no-new-privileges", "note", &["sudo"]);
    assert_eq!((answer.code, doctor(&[]).all("no-new-privileges").len()), (0, 0));
}

#[test]
fn too_few_files() {
    let mut command = Command::new("prlimit");
    let answer = asked(command.arg("--nofile=100:600").arg(carnet()).arg("doctor"));
    let finding = answer.assert_says("open-files", "warning", &["600", "100"]);
    assert_eq!((&finding["details"]["soft"], &finding["details"]["hard"]), (&100.into(), &600.into()));
}

/// A copy of the command that every user may start.
fn for_everybody() -> (Scratch, PathBuf) {
    let scratch = Scratch::new();
    let copy = scratch.file("carnet");
    fs::copy(carnet(), &copy).unwrap();
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o755)).unwrap();
    (scratch, copy)
}
