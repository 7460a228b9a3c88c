//! From one policy to the next, by each of the ways that there are.

use carnet_control::{ClientError, EventKind, ProblemKind};
use carnet_e2e::command::finish;

use crate::host::Host;

/// Two mistakes, each in a line of its own.
const MISTAKEN: &str = "defualt = \"block\"\n[[filter]]\nname = \"a\"\naction = \"blok\"\n";

#[test]
fn a_policy_that_is_applied_holds_at_once() {
    let host = Host::new(2);
    let daemon = host.daemon(&host.redirecting(0, "zero"));
    host.assert_goes_to(0, "zero");
    let before = daemon.status().policy.generation;

    let other = host.redirecting(1, "one");
    std::fs::write(daemon.file("other.toml"), &other).unwrap();
    let told = daemon.told(&["apply", daemon.file("other.toml").to_str().unwrap()]);
    assert!(told.contains("is in force: 1 provider, 1 filter"), "{told}");
    host.assert_goes_to(1, "one");
    assert!(daemon.status().policy.generation > before);
    assert_eq!(daemon.told(&["policy"]), other);
}

#[test]
fn a_policy_with_mistakes_changes_nothing_and_all_are_told() {
    let host = Host::new(1);
    let policy = host.redirecting(0, "zero");
    let daemon = host.daemon(&policy);
    let before = daemon.status().policy;

    std::fs::write(daemon.file("bad.toml"), MISTAKEN).unwrap();
    let ended = finish(&mut daemon.ask(&["apply", daemon.file("bad.toml").to_str().unwrap()]));
    assert_eq!(ended.code, 1, "{ended:?}");
    assert!(ended.output.contains("defualt") && ended.output.contains("blok"), "{}", ended.output);

    // The command has seen that itself. So does the daemon.
    let Err(ClientError::Refused(problem)) = daemon.try_apply(MISTAKEN, false, None) else { panic!("it is applied") };
    assert_eq!(problem.kind, ProblemKind::Mistakes);
    let lines: Vec<_> = problem.mistakes.iter().map(|mistake| mistake.line).collect();
    assert_eq!(lines, [1, 4], "{problem:#?}");

    assert_eq!(daemon.status().policy, before);
    assert_eq!(daemon.told(&["policy"]), policy);
    host.assert_goes_to(0, "zero");
}

#[test]
fn a_dry_run_changes_nothing_and_neither_does_an_expectation_that_does_not_hold() {
    let host = Host::new(2);
    let daemon = host.daemon(&host.redirecting(0, "zero"));
    let before = daemon.status().policy;

    let other = host.redirecting(1, "one");
    let tried = daemon.try_apply(&other, true, None).unwrap();
    assert!(!tried.applied && tried.policy.providers == 1, "{tried:?}");
    assert_eq!(daemon.status().policy, before);

    let Err(ClientError::Refused(problem)) = daemon.try_apply(&other, false, Some(before.generation + 7)) else {
        panic!("it is applied")
    };
    assert_eq!(problem.kind, ProblemKind::Precondition);
    assert_eq!(daemon.status().policy, before);
    host.assert_goes_to(0, "zero");

    assert!(daemon.try_apply(&other, false, Some(before.generation)).unwrap().applied);
    host.assert_goes_to(1, "one");
}

#[test]
fn the_file_is_read_again_when_asked_and_at_sighup() {
    let host = Host::new(2);
    let daemon = host.daemon(&host.redirecting(0, "zero"));
    let mut events = daemon.events();

    daemon.write_policy(&host.redirecting(1, "one"));
    host.assert_goes_to(0, "zero");
    daemon.told(&["reload"]);
    host.assert_goes_to(1, "one");

    events.wait_for(EventKind::Policy, "");
    daemon.write_policy(&host.redirecting(0, "again"));
    daemon.hang_up();
    events.wait_for(EventKind::Policy, "");
    host.assert_goes_to(0, "again");

    daemon.write_policy(MISTAKEN);
    let ended = finish(&mut daemon.ask(&["reload"]));
    assert_eq!(ended.code, 1, "{ended:?}");
    assert!(ended.output.contains("defualt") && ended.output.contains("blok"), "{}", ended.output);
    daemon.hang_up();
    events.wait_for(EventKind::Refused, "mistakes");
    host.assert_goes_to(0, "again");
}
