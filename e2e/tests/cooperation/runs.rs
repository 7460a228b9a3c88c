//! `carnet run` in a cgroup that another engine governs, with products on both sides.

use std::path::Path;
use std::process::Command;

use carnet_abi::{REASON_OTHER_ENGINE, VERDICT_PASS, VERDICT_REDIRECT};
use carnet_e2e::command::{Ended, carnet, finish, undisturbed};
use carnet_e2e::flow_log::FlowLog;
use carnet_e2e::netns;
use carnet_e2e::origin::body_of;
use carnet_e2e::programs::{foreign, path};
use carnet_policy::SockName;
use serde_json::Value;

use crate::stage::Product::{Haproxy, Inspect, Squid};
use crate::stage::Stage;
use crate::way::{decisions, passes};

/// The run's service has the flow first, then those of the host, as a flow of the run's service: each once. The run's end
/// is not theirs.
#[test]
fn a_run_among_the_services_of_a_host() {
    netns::alone(|| {
        let mut stage = Stage::new();
        stage.add(Haproxy, SockName::Own);
        stage.add(Inspect, SockName::Own);
        stage.add(Squid, SockName::Own);
        let destination = stage.http[0].address;
        let (log, body) = (stage.file("flows.json"), stage.file("body"));
        for turn in 0..2 {
            stage.sandbox.events();
            // A cgroup namespace, as a container has: the run's cgroup is made in the application's.
            let mount = stage.sandbox.hierarchy().mount().display().to_string();
            let mount = format!("umount '{mount}' && mount -t cgroup2 none '{mount}' && exec \"$@\"");
            let mut run = stage.sandbox.app_command("unshare");
            run.args(["--cgroup", "--mount", "sh", "-c", &mount, "sh"]).arg(carnet());
            let url = format!("http://{destination}/inside/{turn}");
            let ended = fetch(&mut run, &log, &url, &body);
            assert_eq!(ended.code, 0, "{ended:?}");
            assert_eq!(std::fs::read_to_string(&body).unwrap(), body_of(&format!("/inside/{turn}")));

            let told = FlowLog::read(&log);
            let [flow] = &told.flows[..] else { panic!("one flow: {told:#?}") };
            assert_eq!((flow.text("program"), flow.destination()), (Some("curl"), destination));
            assert_eq!((flow.chain(), flow.text("ended")), (vec![("inspect", false)], Some("closed")));

            let decided = decisions(&mut stage);
            let ways: Vec<_> = decided.iter().map(|event| (event.verdict, event.handle)).collect();
            let redirected = |handle| (VERDICT_REDIRECT, handle);
            let host = [redirected(1), redirected(2), redirected(3), (VERDICT_PASS, 0)];
            assert_eq!(ways[1..], host, "{decided:#?}");
            assert_eq!((ways[0], decided[0].reason), ((VERDICT_PASS, 0), REASON_OTHER_ENGINE), "curl's is the run's");
            for event in &decided[1..] {
                assert_eq!(event.remote.to_socket_addr(), destination);
                assert!(event.record.origin.comm.starts_with(b"carnet-inspect\0"), "{event:#?}");
            }
        }
        passes(&mut stage, &[0, 1, 2], 0, "/beside");
    });
}

/// A run makes its cgroup at the top of what it sees of the hierarchy, unless it is in another run. So it takes its command,
/// which is root's anyway, out of a cgroup that an engine of somebody else's governs.
#[test]
fn a_run_that_sees_the_top_leaves_a_governed_cgroup() {
    netns::alone(|| {
        let mut stage = Stage::new();
        stage.add(Inspect, SockName::Own);
        let (log, body) = (stage.file("flows.json"), stage.file("body"));
        let mut run = stage.sandbox.app_command(carnet().to_str().expect("a path that is text"));
        let ended = fetch(&mut run, &log, &format!("http://{}/outside", stage.http[0].address), &body);
        assert_eq!(ended.code, 0, "{ended:?}");
        assert_eq!(FlowLog::read(&log).flows.len(), 1);
        assert_eq!(decisions(&mut stage), []);

        let mut doctor = stage.sandbox.app_command(carnet().to_str().expect("a path that is text"));
        let ended = finish(undisturbed(&mut doctor).args(["doctor", "--json"]));
        let report: Value = serde_json::from_str(&ended.output).expect("its report");
        let findings = report["findings"].as_array().expect("findings").iter();
        let named: Vec<_> = findings.filter(|finding| finding["id"] == "engine-left").collect();
        assert_eq!(named.len(), 1, "{report:#}");
        let governed = stage.sandbox.ground().governed.path().to_str().expect("a path that is text");
        assert_eq!((&named[0]["level"], &named[0]["details"]["cgroup"]), (&"warning".into(), &governed.into()));
    });
}

/// The same four as in `orders`, as services of a run: its flow log has the application, every service, and behind which of
/// them what follows was inferred.
#[test]
fn the_flow_log_of_a_run_through_all_four() {
    netns::alone(|| {
        let stage = Stage::new();
        let (log, body) = (stage.file("flows.json"), stage.file("body"));
        let squid = stage.squid_on_any_port();
        let haproxy = foreign("haproxy").display().to_string();
        let mitmdump = "mitmdump --mode transparent --listen-port {port}".to_owned();
        let services = [
            ("inspect", "inspect".to_owned()),
            ("haproxy", format!("'{haproxy}' {{port}}")),
            ("squid", format!("'{}' {{port}}", squid.display())),
            ("mitmdump", mitmdump),
        ];
        for (turn, order) in [[0, 1, 2, 3], [2, 1, 0, 3]].into_iter().enumerate() {
            let mut run = Command::new(carnet());
            undisturbed(&mut run).env("HOME", stage.file("home")).env("PATH", path()).arg("run");
            run.args(order.iter().flat_map(|&place| ["--through", &services[place].1]));
            let url = format!("http://{}/run/{turn}", stage.http[0].address);
            let ended = finish(of_curl(&mut run, &log, &url, &body));
            assert_eq!(ended.code, 0, "{ended:?}");
            let told = FlowLog::read(&log);
            let [flow] = &told.flows[..] else { panic!("one flow: {told:#?}") };
            let had: Vec<_> = order.iter().map(|&place| (services[place].0, place != 0)).collect();
            assert_eq!((flow.chain(), flow.is_ambiguous()), (had, false));
            assert_eq!((flow.text("program"), flow.destination()), (Some("curl"), stage.http[0].address));
            assert_eq!(flow.text("ended"), Some("closed"), "{flow:?}");
            assert_eq!(std::fs::read_to_string(&body).unwrap(), body_of(&format!("/run/{turn}")));
        }
        let served: Vec<_> = stage.http[0].served().into_iter().map(|exchange| exchange.path).collect();
        assert_eq!(served, ["/run/0", "/run/1"]);
    });
}

/// `carnet run` of curl; `run` is a command to which that is to be said.
fn fetch(run: &mut Command, log: &Path, url: &str, body: &Path) -> Ended {
    finish(of_curl(undisturbed(run).env("PATH", path()).arg("run"), log, url, body))
}

fn of_curl<'a>(run: &'a mut Command, log: &Path, url: &str, body: &Path) -> &'a mut Command {
    run.args(["--json", "--log"]).arg(log).arg("--");
    run.args(["curl", "-sS", "--fail", "--max-time", "20", url, "-o"]).arg(body)
}
