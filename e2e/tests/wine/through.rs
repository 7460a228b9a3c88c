//! A client, origins, and `carnet run` between them; and what must be true of every flow that was carried.

use std::collections::BTreeMap;

use carnet_e2e::command::{Ended, carnet_run, finish};
use carnet_e2e::flow_log::{Flow, FlowLog};
use carnet_e2e::origin::{Exchange, Origin};
use carnet_e2e::programs::{foreign, path};
use carnet_e2e::sockets::until;

use crate::service::{Service, Services};

/// So many connections at the same time to each of two origins, by IPv4 and by IPv6, and so many bytes each way. Answers come
/// only after the client's half is closed. Every service says who goes where, and the flow log says that each has carried
/// the record itself.
pub fn payload_and_half_close(services: &Services, order: &[Service], count: usize, size: u64) {
    let origins = ["127.0.0.1:0", "[::1]:0"].map(Origin::echo_at_the_end);
    let mut client = vec!["python3".into(), foreign("half_close.py").display().to_string()];
    client.extend([count.to_string(), size.to_string()]);
    for origin in &origins {
        client.extend([origin.address.ip().to_string(), origin.address.port().to_string()]);
    }

    let (ended, log) = run(services, order, &client);
    assert_eq!(ended.code, 0, "{order:?}: {ended:?}");
    assert_eq!(ended.output.trim(), (2 * count).to_string());
    assert_eq!((log.flows.len(), &log.warnings[..]), (2 * count, &[][..]), "{log:#?}");
    for origin in &origins {
        assert_eq!(log.to(origin.address).len(), count);
        until("the origin to see the connections' ends", || (origin.served().len() >= count).then_some(()));
        let exchange = Exchange { received: size, sent: size, ..Exchange::default() };
        assert_eq!(origin.served(), vec![exchange; count]);
    }
    let names = names(order);
    for flow in &log.flows {
        assert_eq!((flow.text("decision"), flow.text("ended")), (Some("redirected"), Some("closed")), "{flow:?}");
        assert_eq!(flow.bytes(), (size, size));
        // Not inferred: each service has set the record.
        assert_eq!(flow.chain(), names.iter().map(|name| (&name[..], false)).collect::<Vec<_>>());
    }
    each_service_says_who_goes_where(&names, &ended, &log.flows);
}

/// `carnet run` of a command through these services, over.
pub fn run(services: &Services, order: &[Service], command: &[String]) -> (Ended, FlowLog) {
    let log = services.file("flows.json");
    let mut run = carnet_run(&["--verbose", "--json", "--log"]);
    run.arg(&log).env("PATH", path());
    for (&service, place) in order.iter().zip(0..) {
        run.arg("--through").arg(services.through(service, place));
    }
    let ended = finish(run.arg("--").args(command));
    assert!(log.exists(), "{}", ended.errors);
    (ended, FlowLog::read(&log))
}

/// One line of each service for each flow: `pid comm destination depth`, the first application's at every hop.
fn each_service_says_who_goes_where(names: &[String], ended: &Ended, flows: &[Flow]) {
    let mut expected: BTreeMap<String, usize> = BTreeMap::new();
    for (name, depth) in names.iter().zip(1..) {
        for flow in flows {
            let program = flow.text("program").unwrap();
            let line = format!("[{name}] {} {program} {} {depth}", flow.number("pid"), flow.destination());
            *expected.entry(line).or_default() += 1;
        }
    }
    for (line, count) in expected {
        let said = ended.errors.lines().filter(|said| *said == line).count();
        assert_eq!(said, count, "{line}\n{}", ended.errors);
    }
}

/// The services' names in the flow log: the second of a kind is NAME-2.
fn names(order: &[Service]) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for service in order {
        let before = names.iter().filter(|name| name.starts_with(service.name())).count();
        let count = if before == 0 { String::new() } else { format!("-{}", before + 1) };
        names.push(format!("{}{count}", service.name()));
    }
    names
}
