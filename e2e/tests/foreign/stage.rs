//! Origins, services, and `carnet run` with its flow log.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;

use carnet_e2e::Running;
use carnet_e2e::command::{Ended, carnet_run, finish};
use carnet_e2e::flow_log::FlowLog;
use carnet_e2e::origin::Origin;
use carnet_e2e::programs::{Scratch, foreign, path, program, require, succeed};

use crate::clients::built;

/// What stands in the place of `inspect` or beside it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Service {
    Inspect,
    Haproxy,
    Redsocks,
    Mitmdump,
    /// In Go, and listens for MPTCP.
    Go,
}

impl Service {
    /// As the flow log calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Inspect => "inspect",
            Self::Haproxy => "haproxy",
            Self::Redsocks => "redsocks",
            Self::Mitmdump => "mitmdump",
            Self::Go => "go-service",
        }
    }

    /// Whether it carries records.
    pub fn is_aware(self) -> bool {
        self == Self::Inspect
    }

    /// HAProxy and redsocks ask for IPv4 destinations only.
    pub fn has_ipv6(self) -> bool {
        !matches!(self, Self::Haproxy | Self::Redsocks)
    }
}

/// An HTTP and a TLS origin on both loopback addresses.
pub struct Stage {
    /// By IPv4, by IPv6.
    pub http: [Origin; 2],
    tls_at: [SocketAddr; 2],
    tls: Running,
    scratch: Scratch,
}

/// Something to fetch.
#[derive(Clone, Debug)]
pub struct Target {
    /// With a name that the client is told the address of.
    pub url: String,
    /// The name in it.
    pub host: &'static str,
    /// The path in it.
    pub path: String,
    /// Where it is.
    pub address: SocketAddr,
    /// Over TLS, or not.
    pub is_tls: bool,
}

impl Stage {
    /// Starts the origins. Call it in a network namespace of the test's own.
    pub fn new() -> Self {
        require(&["curl", "haproxy", "microsocks", "mitmdump", "openssl", "python3", "redsocks"]);
        let scratch = Scratch::new();
        let [certificate, key] = ["origin.pem", "origin.key"].map(|name| scratch.file(name));
        let mut openssl = program("openssl");
        openssl.args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-days",
            "2",
        ]);
        openssl.args(["-subj", "/CN=origin", "-addext", "subjectAltName=DNS:origin4.test,DNS:origin6.test"]);
        succeed(openssl.arg("-out").arg(&certificate).arg("-keyout").arg(&key));
        let mut tls = Running::start(program("python3").arg(foreign("tls_origin.py")).arg(&certificate).arg(&key));
        let line = tls.line();
        let (v4, v6) = line.split_once(' ').expect("two addresses");
        let tls_at = [v4, v6].map(|address| address.parse().expect("an address"));
        let http = ["127.0.0.1:0", "[::1]:0"].map(Origin::http);
        Self { http, tls_at, tls, scratch }
    }

    /// One of each protocol and family. The path tells whose request it was.
    pub fn targets(&self, whose: &str, ipv6: bool) -> Vec<Target> {
        let mut targets = Vec::new();
        for (family, host) in ["origin4.test", "origin6.test"].into_iter().enumerate().take(1 + usize::from(ipv6)) {
            for (scheme, address) in [("http", self.http[family].address), ("https", self.tls_at[family])] {
                let path = format!("/{whose}/{scheme}/{host}");
                let url = format!("{scheme}://{host}:{}{path}", address.port());
                targets.push(Target { url, host, path, address, is_tls: scheme == "https" });
            }
        }
        targets
    }

    /// Requests for this path that have been served over TLS.
    pub fn served_over_tls(&mut self, path: &str) -> usize {
        self.tls.go_on();
        let served: Vec<String> = serde_json::from_str(&self.tls.line()).expect("a list of paths");
        served.iter().filter(|served| *served == path).count()
    }

    /// A file that goes away with this.
    pub fn file(&self, name: &str) -> PathBuf {
        self.scratch.file(name)
    }

    /// What a client has to trust: mitmdump's own authority, where that is on the way.
    pub fn trusted(&self, services: &[Service]) -> String {
        let mitmproxy = services.contains(&Service::Mitmdump);
        let file = if mitmproxy { "mitmproxy/mitmproxy-ca-cert.pem" } else { "origin.pem" };
        self.file(file).display().to_string()
    }

    /// `carnet run` with a service for each `--through`, and these words besides.
    pub fn run(&self, services: &[Service], options: &[&str], command: &[String]) -> (Ended, FlowLog) {
        let through = services.iter().map(|service| self.through(*service));
        let log = self.file("flows.json");
        let arguments: Vec<String> = through
            .flat_map(|service| ["--through".to_owned(), service])
            .chain(options.iter().map(|&option| option.to_owned()))
            .chain(["--json", "--log"].map(str::to_owned))
            .chain([log.display().to_string(), "--".to_owned()])
            .chain(command.iter().cloned())
            .collect();
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let mut run: Command = carnet_run(&arguments);
        let ended = finish(run.env("PATH", path()));
        assert!(log.exists(), "{}", ended.errors);
        (ended, FlowLog::read(&log))
    }

    /// The argument of `--through`.
    pub fn through(&self, service: Service) -> String {
        let file = |name: &str| self.file(name).display().to_string();
        match service {
            Service::Inspect => "inspect".into(),
            Service::Go => format!("'{}' {{port}}", built("go-service").display()),
            Service::Haproxy => format!("'{}' {{port}}", foreign("haproxy").display()),
            Service::Redsocks => format!("'{}' {{port}} {SOCKS_PORT}", foreign("redsocks").display()),
            Service::Mitmdump => format!(
                "mitmdump --mode transparent -p {{port}} --set confdir='{}' --set ssl_verify_upstream_trusted_ca='{}'",
                file("mitmproxy"),
                file("origin.pem"),
            ),
        }
    }
}

/// Of the SOCKS server behind redsocks. Nobody else is in the test's network namespace.
pub const SOCKS_PORT: u16 = 1080;
