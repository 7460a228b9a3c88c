//! Leaving the governed cgroup, or joining a service's.

use std::fs::{self, File};
use std::os::unix::fs::chown;
use std::path::Path;
use std::process::{Command, Stdio};

use carnet::Redirect;
use carnet_e2e::command::{Ended, finish};
use carnet_e2e::sockets::{accept, assert_joined, connect, is_idle, stream};
use carnet_e2e::{Ground, Sandbox, enter, raw, set_records};
use carnet_engine::cgroup::Cgroup;
use libc::EACCES;

use super::Stage;

/// Those above it, beside it and the services' are root's.
#[test]
fn a_user_cannot_write_itself_into_another_cgroup() {
    let stage = Stage::on(Sandbox::on(Ground::with_ancestor()));
    let ground = stage.sandbox.ground();
    let outside = ground.ancestor().child("outside").unwrap();
    let own = stage.sandbox.app_cgroup().path();
    for to in
        [ground.hierarchy.mount(), ground.governed.path(), stage.sandbox.service_cgroup(0).path(), outside.path(), own]
    {
        let ended = move_to(&mut stage.sandbox.app_command("setpriv"), to);
        assert_eq!((ended.code, ended.output.trim()), (0, "refused"), "{}: {}", to.display(), ended.errors);
    }
}

/// `clone3` with `CLONE_INTO_CGROUP` needs the right to write there as well.
#[test]
fn a_user_cannot_start_a_process_in_another_cgroup() {
    let stage = Stage::new();
    for to in [stage.sandbox.service_cgroup(0).path(), stage.sandbox.hierarchy().mount()] {
        let cgroup = File::open(to).unwrap();
        let started = stage.sandbox.in_app(|| (raw::clone_into(&cgroup), raw::as_nobody(|| raw::clone_into(&cgroup))));
        assert_eq!(started, (Ok(()), Err(EACCES)), "root, and a user");
    }
}

/// Who was given a cgroup moves inside of it, and stays governed. To another that he was given it takes the right to write
/// to the one above both.
#[test]
fn who_was_given_cgroups_stays_below() {
    let stage = Stage::on(Sandbox::on(Ground::with_ancestor()));
    let given = stage.sandbox.app_cgroup().child("given").unwrap();
    let [from, to] = ["from", "to"].map(|name| given.child(name).unwrap());
    let outside = stage.sandbox.ground().ancestor().child("outside").unwrap();
    [&given, &from, &to, &outside].into_iter().for_each(give);
    let ended = move_to(&mut enter(&from, "setpriv"), outside.path());
    assert_eq!((ended.code, ended.output.trim()), (0, "refused"), "{}", ended.errors);
    let ended = move_to(&mut enter(&from, "setpriv"), to.path());
    assert_eq!((ended.code, ended.output.trim()), (0, "moved"), "{}", ended.errors);
    let connected = stage.sandbox.ground().within(&to, || raw::as_nobody(|| connect(stage.destination)));
    let flow = Redirect::of(&accept(&stage.service.listeners[0])).flow().unwrap();
    assert_eq!(flow.origin().cgroup_id, to.id());
    drop(connected);
    stage.assert_nobody_came();
}

/// Who was given one may make as many below as he likes.
#[test]
fn a_cgroup_far_below_is_governed_like_any() {
    let stage = Stage::new();
    let mut path = stage.sandbox.app_cgroup().path().to_owned();
    give(stage.sandbox.app_cgroup());
    for _ in 0..40 {
        path.push("n");
        raw::as_nobody(|| fs::create_dir(&path)).expect("it was given");
    }
    let deepest = Cgroup::open(stage.sandbox.hierarchy(), &path).unwrap();
    let _client = stage.sandbox.ground().within(&deepest, || raw::as_nobody(|| connect(stage.destination))).unwrap();
    stage.assert_redirected();
}

/// Where the governed cgroup is itself inside one that the user was given, nothing keeps him in.
#[test]
fn who_may_write_above_the_governed_cgroup_leaves_it() {
    let stage = Stage::on(Sandbox::on(Ground::with_ancestor()));
    let outside = stage.sandbox.ground().ancestor().child("outside").unwrap();
    [&stage.sandbox.ground().ancestor(), &outside].into_iter().for_each(give);
    let ended = move_to(&mut stage.sandbox.app_command("setpriv"), outside.path());
    assert_eq!((ended.code, ended.output.trim()), (0, "moved"), "{}", ended.errors);
    let mut client = stage.sandbox.ground().within(&outside, || raw::as_nobody(|| connect(stage.destination))).unwrap();
    assert_joined(&mut client, &mut accept(&stage.server));
    assert!(stage.service.listeners.iter().all(is_idle));
}

/// And where the service's was given away, whoever has it is the service.
#[test]
fn who_may_write_to_a_services_cgroup_is_the_service() {
    let stage = Stage::new();
    give(stage.sandbox.service_cgroup(0));
    give(stage.sandbox.app_cgroup());
    // The one above both.
    give(&stage.sandbox.ground().governed);
    let ended = move_to(&mut stage.sandbox.app_command("setpriv"), stage.sandbox.service_cgroup(0).path());
    assert_eq!((ended.code, ended.output.trim()), (0, "moved"), "{}", ended.errors);
    let (_client, accepted) = stage.sandbox.arrive(&stage.service, stage.destination);
    let blob = Redirect::of(&accepted).records().unwrap();
    let set = || {
        let socket = stream(stage.destination);
        set_records(&socket, blob.as_bytes())
    };
    assert_eq!(stage.sandbox.in_service(0, || raw::as_nobody(set)), Ok(()));
}

/// A shell without privileges in the cgroup of the command tries to move to that cgroup.
fn move_to(in_cgroup: &mut Command, to: &Path) -> Ended {
    let script = "if echo $$ 2>/dev/null > \"$0\"; then echo moved; else echo refused; fi";
    let user = raw::NOBODY.to_string();
    in_cgroup.args(["--reuid", &user, "--regid", &user, "--clear-groups", "sh", "-c", script]);
    finish(in_cgroup.arg(to.join("cgroup.procs")).stdin(Stdio::null()))
}

/// As a service manager gives a user a cgroup: the directory and who is in it.
fn give(cgroup: &Cgroup) {
    for path in [cgroup.path().to_owned(), cgroup.path().join("cgroup.procs")] {
        chown(path, Some(raw::NOBODY), Some(raw::NOBODY)).unwrap();
    }
}
