//! Where cgroups are, and what is in them.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::process::Command;

use carnet_e2e::command::{Run, carnet};
use carnet_e2e::{Ground, enter};
use carnet_engine::cgroup::Hierarchy;

use crate::foreign::{CONNECT4, Foreign, MULTI};
use crate::{Answer, asked, doctor};

#[test]
fn no_cgroup2_at_all() {
    let mount = Hierarchy::find().unwrap().mount().to_str().unwrap().to_owned();
    let answer = without(&format!("umount -l '{mount}'"));
    answer.assert_says("cgroup2-missing", "problem", &["no cgroup2"]);
    answer.assert_says("programs-untried", "warning", &["cgroup2"]);
    assert_eq!((answer.code, answer.all("cgroup2").len()), (1, 0));
}

#[test]
fn a_mount_that_is_read_only() {
    let mount = Hierarchy::find().unwrap().mount().to_str().unwrap().to_owned();
    let answer = without(&format!("mount -o remount,bind,ro '{mount}'"));
    answer.assert_says("cgroups-not-creatable", "problem", &["read-only", &mount]);
    assert_eq!(answer.code, 1);
}

#[test]
fn a_run_that_goes_on() {
    let mut run = Run::idle(&[]);
    let place = run.cgroup();
    let answer = doctor(&[]);
    let is_it = |finding: &&serde_json::Value| finding["details"]["cgroup"] == place.to_str().unwrap();
    assert!(answer.all("run-active").into_iter().any(|finding| is_it(&finding)), "{:#}", answer.report);
    run.close_input();
    assert_eq!(run.end().code, 0);
    assert!(!doctor(&[]).all("run-active").iter().any(is_it));
}

#[test]
fn what_a_killed_run_has_left() {
    let ground = Ground::new();
    assert_eq!(in_container(&ground).all("run-leftover").len(), 0);
    // A process of this number cannot have started then: pid 1 did when the machine did.
    let namespace = fs::metadata("/proc/self/ns/pid").unwrap().ino();
    let name = format!("carnet.run-1-{}-{namespace}", u64::MAX);
    let _left = ground.governed.child(&name).unwrap();
    let answer = in_container(&ground);
    let finding = answer.assert_says("run-leftover", "warning", &[&name]);
    assert!(finding["do"].as_str().unwrap().contains("the next carnet run"), "{finding:#}");
    assert_eq!(answer.code, 0);
}

#[test]
fn as_many_cgroups_as_there_may_be() {
    let ground = Ground::new();
    in_container(&ground).assert_says("cgroups-creatable", "ok", &[]);
    for (file, most, words) in [("cgroup.max.descendants", "5", "there are 2"), ("cgroup.max.depth", "2", "needs 3")] {
        fs::write(ground.governed.path().join(file), most).unwrap();
        let answer = in_container(&ground);
        answer.assert_says("cgroups-not-creatable", "problem", &[file, words]);
        assert_eq!(answer.code, 1);
        fs::write(ground.governed.path().join(file), "max").unwrap();
    }
}

#[test]
fn a_program_above_a_containers_root_is_seen_from_inside() {
    let ground = Ground::with_ancestor();
    let foreign = Foreign::load();
    foreign.attach("lb_connect4", CONNECT4, &ground.ancestor(), MULTI);
    let answer = in_container(&ground);
    answer.assert_says("connect-after", "note", &["lb_connect4", "above the mount"]);
}

/// Asks in a cgroup namespace whose root is the ground's governed cgroup, as in a container.
fn in_container(ground: &Ground) -> Answer {
    let mount = ground.hierarchy.mount().to_str().unwrap();
    let script = format!("umount -l '{mount}' && mount -t cgroup2 none '{mount}' && exec \"$@\"");
    let mut command = enter(&ground.governed, "unshare");
    asked(command.args(["--cgroup", "--mount", "sh", "-c", &script, "sh"]).arg(carnet()).arg("doctor"))
}

/// Asks in a mount namespace in which something was done before.
fn without(change: &str) -> Answer {
    let mut command = Command::new("unshare");
    let script = format!("{change} && exec \"$@\"");
    asked(command.args(["--mount", "sh", "-c", &script, "sh"]).arg(carnet()).arg("doctor"))
}
