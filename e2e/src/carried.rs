//! Services in a chain, and what must be true of every flow that they carry, whoever has written them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;

use crate::command::{Ended, carnet_run, finish};
use crate::flow_log::{Flow, FlowLog};
use crate::origin::{Exchange, Origin};
use crate::programs::{CURL_GOT_NOTHING, Scratch, foreign, path};
use crate::sockets::until;

/// A service, as its chain knows it.
#[derive(Clone, Debug)]
pub struct Carrier {
    /// As the flow log calls it, when it is the first of its kind.
    pub name: &'static str,
    /// The words of `--through`.
    pub through: String,
    /// What it prints of a flow in this place of the chain, from 1, if anything.
    pub line: fn(&Flow, usize) -> Option<String>,
}

/// Services in the order of `--through`.
#[derive(Clone, Debug)]
pub struct Chain {
    /// The services.
    pub carriers: Vec<Carrier>,
    /// Where they are started.
    pub directory: PathBuf,
}

/// `pid comm destination depth`: the first application's, in every place.
pub fn who_goes_where(flow: &Flow, place: usize) -> Option<String> {
    Some(format!("{} {} {} {place}", flow.number("pid"), printable(flow), flow.destination()))
}

/// The application's name, as a terminal may see it.
pub fn printable(flow: &Flow) -> String {
    flow.text("program").expect("a name").replace(|c: char| !c.is_ascii_graphic(), "?")
}

impl Chain {
    /// Of services that are started where the test is.
    pub fn of(carriers: impl IntoIterator<Item = Carrier>) -> Self {
        Self { carriers: carriers.into_iter().collect(), directory: ".".into() }
    }

    /// So many connections at the same time to each of two origins, by IPv4 and by IPv6, and so many bytes each way.
    /// Answers come only after the client's half is closed. Every service says who goes where, and the flow log that each
    /// has set the record itself.
    pub fn carries_payload_and_half_close(&self, count: usize, size: u64) {
        let origins = ["127.0.0.1:0", "[::1]:0"].map(Origin::echo_at_the_end);
        let mut client = vec!["python3".into(), foreign("half_close.py").display().to_string()];
        client.extend([count.to_string(), size.to_string()]);
        for origin in &origins {
            client.extend([origin.address.ip().to_string(), origin.address.port().to_string()]);
        }

        let (ended, log) = self.run(&client);
        assert_eq!(ended.code, 0, "{ended:?}");
        assert_eq!(ended.output.trim(), (2 * count).to_string());
        assert_eq!((log.flows.len(), &log.warnings[..]), (2 * count, &[][..]), "{log:#?}");
        for origin in &origins {
            assert_eq!(log.to(origin.address).len(), count);
            until("the origin to see the connections' ends", || (origin.served().len() >= count).then_some(()));
            let exchange = Exchange { received: size, sent: size, ..Exchange::default() };
            assert_eq!(origin.served(), vec![exchange; count]);
        }
        for flow in &log.flows {
            assert_eq!((flow.text("decision"), flow.text("ended")), (Some("redirected"), Some("closed")), "{flow:?}");
            assert_eq!(flow.bytes(), (size, size));
            self.is_chain_of(flow);
        }
        self.has_said(&ended, &log.flows);
    }

    /// The client is told by a reset, the user by the last service's own words, and the log has the cause.
    pub fn passes_a_refusal_on(&self) {
        // Nobody listens on it in a network namespace of the test's own.
        let closed: SocketAddr = ([127, 0, 0, 1], 9).into();
        // Silent, for curl writes a line in pieces, and those of the services come between them.
        let curl = ["curl", "-s", "--max-time", "10", &format!("http://{closed}/")].map(str::to_owned);
        let (ended, log) = self.run(&curl);
        assert!(CURL_GOT_NOTHING.contains(&ended.code), "{ended:?}");
        let [flow] = &log.flows[..] else { panic!("one flow: {log:#?}") };
        assert_eq!((flow.destination(), flow.text("ended"), flow.at()), (closed, Some("failed"), Some("destination")));
        assert_eq!(flow.text("error"), Some("ECONNREFUSED"));
        self.is_chain_of(flow);
        self.has_said(&ended, &log.flows);
        let last = self.names().pop().expect("a service");
        let said = |line: &str| line.starts_with(&format!("[{last}] ")) && REFUSED.iter().any(|why| line.contains(why));
        assert!(ended.errors.lines().any(said), "{last} says why: {}", ended.errors);
    }

    /// `carnet run` of a command through these services, over.
    pub fn run(&self, command: &[String]) -> (Ended, FlowLog) {
        let scratch = Scratch::new();
        let log = scratch.file("flows.json");
        let mut run = carnet_run(&["--verbose", "--json", "--log"]);
        self.put_into(run.arg(&log));
        let ended = finish(run.arg("--").args(command));
        // What a failed test shows.
        eprintln!("{:?}\n{}", self.names(), ended.errors);
        assert!(log.exists(), "{}", ended.errors);
        (ended, FlowLog::read(&log))
    }

    /// The words of `carnet run` that start these services.
    pub fn put_into(&self, run: &mut Command) {
        run.current_dir(&self.directory).env("PATH", path());
        for carrier in &self.carriers {
            run.arg("--through").arg(&carrier.through);
        }
    }

    /// Each service has printed its line once for each flow.
    pub fn has_said(&self, ended: &Ended, flows: &[Flow]) {
        let mut expected: BTreeMap<String, usize> = BTreeMap::new();
        for ((carrier, name), place) in self.carriers.iter().zip(self.names()).zip(1..) {
            for line in flows.iter().filter_map(|flow| (carrier.line)(flow, place)) {
                *expected.entry(format!("[{name}] {line}")).or_default() += 1;
            }
        }
        for (line, count) in expected {
            let said = ended.errors.lines().filter(|said| *said == line).count();
            assert_eq!(said, count, "{line}\n{}", ended.errors);
        }
    }

    /// Not inferred: each service has set the record.
    fn is_chain_of(&self, flow: &Flow) {
        let names = self.names();
        assert_eq!(flow.chain(), names.iter().map(|name| (&name[..], false)).collect::<Vec<_>>());
    }

    /// As the flow log has them: the second of a kind is NAME-2.
    fn names(&self) -> Vec<String> {
        let mut names = Vec::new();
        for (carrier, place) in self.carriers.iter().zip(0..) {
            let before = self.carriers[..place].iter().filter(|before| before.name == carrier.name).count();
            names.push(if before == 0 { carrier.name.into() } else { format!("{}-{}", carrier.name, before + 1) });
        }
        names
    }
}

/// How services say that nobody listens: in words, or by Winsock's number, for Wine has no text for it.
const REFUSED: [&str; 2] = ["onnection refused", "os error 10061"];
