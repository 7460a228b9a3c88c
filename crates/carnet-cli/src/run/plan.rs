//! What the command line asks for: the services in their order.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use carnet_policy::{Action, Filter, Match, OnDead, Owner, Policy, Prefix, Provider, Reach, Service, SockName};

/// One `--through`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Through {
    /// The built-in service.
    Inspect,
    /// A service that runs already.
    Address(SocketAddr),
    /// A service to start: its words, with [`PORT`] in at least one of them.
    Command(Vec<String>),
}

/// Stands for the port which a started service is to listen on.
const PORT: &str = "{port}";

impl Through {
    /// For clap, which puts the option's name before the message and exits with 2.
    pub fn parse(value: &str) -> Result<Self, String> {
        if value == "inspect" {
            return Ok(Self::Inspect);
        }
        if let Ok(address) = value.parse::<SocketAddr>() {
            return match address {
                _ if address.port() == 0 => Err("port 0 is no port that a service listens on".into()),
                _ if address.ip().is_unspecified() => {
                    Err(format!("name the address to connect to, such as 127.0.0.1:{}", address.port()))
                }
                _ => Ok(Self::Address(address)),
            };
        }
        let Some(words) = shlex::split(value) else {
            return Err("a quotation mark is not closed".into());
        };
        match words.first() {
            None => Err("a service is `inspect`, ADDRESS:PORT, or a command with {port} in it".into()),
            Some(_) if words.iter().any(|word| word.contains(PORT)) => Ok(Self::Command(words)),
            Some(_) if words.len() == 1 && value.contains(':') => {
                Err("not an address. Write numbers: 127.0.0.1:15001 or [::1]:15001".into())
            }
            Some(_) => Err("a command needs {port} where the port it is to listen on belongs".into()),
        }
    }

    /// What people call it.
    fn base_name(&self) -> String {
        match self {
            Self::Inspect => "inspect".into(),
            Self::Address(address) => address.to_string(),
            Self::Command(words) => {
                let program = Path::new(&words[0]);
                program.file_name().unwrap_or(program.as_os_str()).to_string_lossy().into_owned()
            }
        }
    }
}

/// The words of a service's command with its port in place.
pub fn with_port(words: &[String], port: u16) -> Vec<String> {
    words.iter().map(|word| word.replace(PORT, &port.to_string())).collect()
}

/// Names for services, unique: the second `inspect` is `inspect-2`.
pub fn names(services: &[Through]) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for service in services {
        let base = service.base_name();
        let mut name = base.clone();
        let mut count = 1;
        while names.contains(&name) {
            count += 1;
            name = format!("{base}-{count}");
        }
        names.push(name);
    }
    names
}

/// What holds for every service of a run.
#[derive(Clone, Copy, Debug, Default)]
pub struct Terms {
    /// A dead service is passed by; otherwise it ends the command.
    pub open: bool,
    /// Connections to loopback addresses go straight on.
    pub no_loopback: bool,
    /// Connections handed to one service at once per destination; `None`: by the kind of service.
    pub loop_limit: Option<u32>,
    /// UDP to port 443 is refused, so that the command uses TCP.
    pub block_quic: bool,
    /// Sockets that cannot be inspected are refused.
    pub strict: bool,
    /// Services have ways to destinations without a route.
    pub any_destination: bool,
}

/// A service that listens, as the policy needs it.
#[derive(Clone, Debug)]
pub struct Ready {
    /// Unique.
    pub name: String,
    /// Whether it carries records.
    pub service: Service,
    /// The cgroup whose listeners and connections are the service's.
    pub owner: Owner,
    /// That cgroup's directory.
    pub cgroup: PathBuf,
    /// Where connections are to go.
    pub listeners: Vec<SocketAddr>,
}

/// The policy for these services, in this order. Handles count from 1, ranks go up in tens.
pub fn policy(services: &[Ready], terms: &Terms) -> Policy {
    let providers = services.iter().zip(1_u16..).map(|(service, place)| Provider {
        name: service.name.clone(),
        handle: place.into(),
        rank: place * 10,
        service: service.service,
        on_dead: if terms.open { OnDead::Open } else { OnDead::Closed },
        direct: false,
        owners: vec![service.owner],
        listeners: service.listeners.clone(),
        reach: if terms.any_destination { Reach::Anywhere } else { Reach::Routes },
        sockname: SockName::Own,
        in_flight_limit: terms.loop_limit.unwrap_or(match service.service {
            Service::Aware => AWARE_LIMIT,
            Service::Unaware => UNAWARE_LIMIT,
        }),
        filters: filters(terms),
    });
    Policy { providers: providers.collect(), block_quic: terms.block_quic, strict: terms.strict, ..Policy::default() }
}

fn filters(terms: &Terms) -> Vec<Filter> {
    let mut filters = vec![Filter {
        name: "all".into(),
        weight: 100,
        matches: Match::default(),
        action: Action::Redirect { context: Vec::new() },
    }];
    if terms.no_loopback {
        let loopback = [
            Prefix { address: [127, 0, 0, 0].into(), length: 8 },
            Prefix::from(std::net::IpAddr::V6(std::net::Ipv6Addr::LOCALHOST)),
        ];
        filters.extend(loopback.map(|prefix| Filter {
            name: format!("not {prefix}"),
            weight: 200,
            matches: Match::default().to(prefix),
            action: Action::Skip,
        }));
    }
    filters
}

/// A record tells who has had a flow, so the guard is only for what nobody has thought of.
const AWARE_LIMIT: u32 = 32768;
/// A helper process outside the service's cgroup makes a loop that only this guard ends.
const UNAWARE_LIMIT: u32 = 4096;

#[cfg(test)]
mod tests {
    use carnet_policy::{Question, Verdict, decide};

    use super::*;

    fn words(words: &[&str]) -> Through {
        Through::Command(words.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn the_forms_of_through() {
        for (text, expected) in [
            ("inspect", Through::Inspect),
            ("127.0.0.1:15001", Through::Address("127.0.0.1:15001".parse().unwrap())),
            ("[::1]:15001", Through::Address("[::1]:15001".parse().unwrap())),
            ("proxy -p {port}", words(&["proxy", "-p", "{port}"])),
            ("proxy --listen=127.0.0.1:{port}", words(&["proxy", "--listen=127.0.0.1:{port}"])),
            ("'my proxy' \"a b\" {port}", words(&["my proxy", "a b", "{port}"])),
            ("/opt/inspect {port}", words(&["/opt/inspect", "{port}"])),
            ("proxy{port}", words(&["proxy{port}"])),
        ] {
            assert_eq!(Through::parse(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_is_none_of_them_is_told_what_is_wrong() {
        for (text, expected) in [
            ("", "a service is `inspect`"),
            ("   ", "a service is `inspect`"),
            ("mitmdump --mode transparent", "needs {port}"),
            ("Inspect", "needs {port}"),
            ("localhost:15001", "Write numbers"),
            ("127.0.0.1:70000", "Write numbers"),
            ("127.0.0.1:0", "port 0"),
            ("0.0.0.0:15001", "127.0.0.1:15001"),
            ("[::]:15001", "name the address"),
            ("proxy 'x {port}", "not closed"),
        ] {
            let message = Through::parse(text).unwrap_err();
            assert!(message.contains(expected), "{text}: {message}");
        }
    }

    #[test]
    fn every_port_is_filled_in() {
        let template = ["p{port}", "--also", "{port}:{port}"].map(String::from);
        assert_eq!(with_port(&template, 81), ["p81", "--also", "81:81"]);
    }

    #[test]
    fn names_are_unique() {
        let services = ["inspect", "/usr/bin/p {port}", "inspect", "inspect", "p -x {port}", "[::1]:9"]
            .map(|t| Through::parse(t).unwrap());
        assert_eq!(names(&services), ["inspect", "p", "inspect-2", "inspect-3", "p-2", "[::1]:9"]);
    }

    fn ready(name: &str, place: u16, service: Service) -> Ready {
        let owner = Owner::Cgroup { id: place.into(), level: 3 };
        Ready {
            name: name.into(),
            service,
            owner,
            cgroup: PathBuf::new(),
            listeners: vec![([127, 0, 0, 1], place).into()],
        }
    }

    #[test]
    fn the_order_of_flags_is_the_order_of_services() {
        let policy = policy(&[ready("a", 1, Service::Aware), ready("b", 2, Service::Unaware)], &Terms::default());

        let order: Vec<_> =
            policy.providers.iter().map(|p| (&p.name[..], p.handle, p.rank, p.in_flight_limit)).collect();
        assert_eq!(order, [("a", 1, 10, 32768), ("b", 2, 20, 4096)]);
        assert!(policy.providers.iter().all(|provider| provider.on_dead == OnDead::Closed));
        policy.compile(1).unwrap();
    }

    #[test]
    fn loopback_is_skipped_only_when_asked() {
        for (no_loopback, expected) in [(false, true), (true, false)] {
            let terms = Terms { open: true, no_loopback, loop_limit: Some(9), ..Terms::default() };
            let policy = policy(&[ready("a", 1, Service::Aware)], &terms);
            let provider = &policy.providers[0];
            assert_eq!((provider.on_dead, provider.in_flight_limit), (OnDead::Open, 9));

            let is_redirected =
                |remote: &str| decide(&policy, &Question::to(remote.parse().unwrap())).verdict == Verdict::Redirect;
            for remote in ["127.0.0.1:80", "127.9.9.9:80", "[::1]:80", "[::ffff:127.0.0.1]:80"] {
                assert_eq!(is_redirected(remote), expected, "{remote}");
            }
            for remote in ["192.0.2.7:80", "[2001:db8::1]:80"] {
                assert!(is_redirected(remote), "{remote}");
            }
        }
    }

    #[test]
    fn what_is_refused_is_the_policys() {
        for (block_quic, strict) in [(false, false), (true, false), (false, true), (true, true)] {
            let terms = Terms { block_quic, strict, ..Terms::default() };
            let policy = policy(&[ready("a", 1, Service::Aware)], &terms);
            assert_eq!((policy.block_quic, policy.strict), (block_quic, strict));
        }
    }

    #[test]
    fn services_with_ways_of_their_own_are_given_every_destination() {
        for (any_destination, reach) in [(false, Reach::Routes), (true, Reach::Anywhere)] {
            let terms = Terms { any_destination, ..Terms::default() };
            assert_eq!(policy(&[ready("a", 1, Service::Aware)], &terms).providers[0].reach, reach);
        }
    }
}
