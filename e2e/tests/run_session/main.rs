//! `carnet run` on a host that `carnet serve` governs: the run's services are a session of that daemon's.
#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]
#![forbid(unsafe_code)]

mod ending;
mod refused;
mod through;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;

use carnet_e2e::command::{carnet, undisturbed};
use carnet_e2e::daemon::Table;
use carnet_e2e::{Daemon, Ground, Relay, enter};

/// A client, see `carnet-e2e-load`.
const LOAD: &str = env!("CARGO_BIN_EXE_carnet-e2e-load");
const RELAY: &str = env!("CARGO_BIN_EXE_carnet-e2e-relay");

/// A daemon with a service of the host's, `host`, that has all connections of the applications; and a server.
///
/// Fields are dropped in this order.
struct Host {
    daemon: Daemon,
    _service: Relay,
    server: Relay,
    ground: Ground,
}

impl Host {
    fn new() -> Self {
        Self::with("")
    }

    /// With these lines at the beginning of the policy.
    fn with(lines: &str) -> Self {
        let ground = Ground::new();
        let cgroup = ground.service(0);
        let service = Relay::start(0, enter(&cgroup, RELAY).arg("aware"));
        let server = Relay::start(1, Command::new(RELAY).arg("server"));
        let table = Table::new("host", 10, &ground, &cgroup, &service.addresses);
        let policy = lines.to_owned() + &table.redirecting("all", "");
        Self { daemon: Daemon::start(&ground, &policy), _service: service, server, ground }
    }

    /// `carnet run`, started by an application.
    fn run(&self, arguments: &[&str]) -> Command {
        let mut command = enter(&self.ground.app, carnet().to_str().unwrap());
        undisturbed(&mut command).arg("run").arg("--socket").arg(self.daemon.socket()).args(arguments);
        command
    }

    fn destination(&self) -> SocketAddr {
        self.server.addresses[0]
    }

    /// Cgroups of runs.
    fn runs(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.ground.governed.path()).unwrap().flatten();
        let runs = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with("carnet.run-"));
        runs.map(|entry| entry.path()).collect()
    }

    fn assert_no_session(&self) {
        carnet_e2e::sockets::until("the daemon to have no session", || {
            let names: Vec<_> = self.daemon.providers().into_iter().map(|provider| provider.name).collect();
            (self.daemon.status().sessions == 0 && names == ["host"]).then_some(())
        });
        assert_eq!(self.runs(), Vec::<PathBuf>::new());
    }
}

/// Names of services without what makes them unique, `@PID`.
fn plain<'a>(names: &[(&'a str, bool)]) -> Vec<&'a str> {
    names.iter().map(|(name, _)| name.split('@').next().unwrap()).collect()
}
