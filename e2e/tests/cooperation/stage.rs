//! Programs that nobody changed for Carnet, each in a cgroup of its own, and a policy that has them as providers. They run
//! with the configuration that docs/services.md gives.

use std::fs::{self, File, Permissions};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use carnet_e2e::command::{Ended, carnet, finish, undisturbed};
use carnet_e2e::origin::{Origin, body_of};
use carnet_e2e::programs::{Scratch, Started, path, require};
use carnet_e2e::sockets::until;
use carnet_e2e::{Running, Sandbox, enter, redirect_all};
use carnet_engine::cgroup::Cgroup;
use carnet_engine::listeners;
use carnet_policy::{OnDead, Owner, Provider, Reach, Service as Kind, SockName};
use serde_json::Value;

/// A service of somebody's. Its numbers are the ports in its configuration.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Product {
    Haproxy = 15001,
    /// In the mode `intercept`.
    Squid = 15002,
    Mitmproxy = 15003,
    Nginx = 15004,
    /// Squid in the mode `tproxy`.
    SquidTproxy = 15005,
    /// The same program once more, on a port of its own.
    HaproxyAgain = 15011,
    /// The built-in one, on a port of its choice.
    Inspect = 0,
}

use Product::{Haproxy, HaproxyAgain, Inspect, Mitmproxy, Nginx, Squid, SquidTproxy};

/// Programs, and what they are in the policy.
pub struct Stage {
    /// By the order of their handles.
    pub products: Vec<Product>,
    /// By IPv4, by IPv6.
    pub http: [Origin; 2],
    /// Before the cgroups that they are in.
    processes: Vec<(usize, Process)>,
    scratch: Scratch,
    pub sandbox: Sandbox,
}

enum Process {
    Foreign(Started),
    Inspect(Running),
}

impl Product {
    /// What it knows of Carnet.
    pub fn kind(self) -> Kind {
        if self == Inspect { Kind::Aware } else { Kind::Unaware }
    }
}

impl Stage {
    /// Without services yet. Call it in a network namespace of the test's own.
    pub fn new() -> Self {
        Self::with(["127.0.0.1:0", "[::1]:0"].map(Origin::http))
    }

    /// With these origins.
    pub fn with(http: [Origin; 2]) -> Self {
        require(&["curl", "haproxy", "mitmdump", "nginx", "squid"]);
        Self { products: Vec::new(), http, processes: Vec::new(), scratch: Scratch::new(), sandbox: Sandbox::new() }
    }

    /// Starts a service and registers it behind those that are there.
    pub fn add(&mut self, product: Product, sockname: SockName) {
        let index = self.products.len();
        let cgroup = self.sandbox.ground().service(index);
        self.products.push(product);
        let listeners = self.start(index);
        self.sandbox.policy.providers.push(Provider {
            name: format!("{product:?}-{index}"),
            handle: index as u32 + 1,
            rank: 10 * (index as u16 + 1),
            service: product.kind(),
            on_dead: OnDead::Closed,
            direct: false,
            reach: Reach::Routes,
            sockname,
            owners: vec![Owner::Cgroup { id: cgroup.id(), level: cgroup.level() }],
            listeners,
            in_flight_limit: 0,
            filters: vec![redirect_all()],
        });
        self.sandbox.apply();
    }

    /// Gives the services ranks in this order.
    pub fn rank(&mut self, order: &[usize]) {
        for (rank, &place) in (1..).zip(order) {
            self.sandbox.policy.providers[place].rank = rank;
        }
        self.sandbox.apply();
    }

    /// An application fetches this path from the origin of this family, and gets what is there. What curl says of the peer.
    pub fn fetch(&self, from: &str, family: usize) -> String {
        let ended = self.curl(from, family);
        let logs = (0..self.products.len()).flat_map(|index| self.logs(index));
        assert_eq!(ended.code, 0, "{}\n{}", ended.errors, logs.collect::<Vec<_>>().join("\n"));
        assert_eq!(fs::read_to_string(self.scratch.file("body")).expect("a body"), body_of(from));
        ended.output
    }

    /// The same, whatever it gets.
    pub fn curl(&self, from: &str, family: usize) -> Ended {
        let url = format!("http://{}{from}", self.http[family].address);
        let mut curl = self.sandbox.app_command("curl");
        curl.args(["-sS", "--fail", "--max-time", "20", "-w", "%{remote_ip} %{remote_port}", &url, "-o"]);
        finish(curl.arg(self.scratch.file("body")).env("PATH", path()))
    }

    /// A file that goes away with this.
    pub fn file(&self, name: &str) -> PathBuf {
        self.scratch.file(name)
    }

    /// A program that is Squid, with its recipe, but on the port that it is told.
    pub fn squid_on_any_port(&self) -> PathBuf {
        let [program, configuration] = ["squid", "squid.conf"].map(|name| self.scratch.file(name));
        fs::write(&configuration, recipe("squid.conf") + SQUID_ALONE).expect("a configuration");
        let told = self.scratch.file("squid.told").display().to_string();
        let make = format!("sed \"s/15002/$1/\" '{}' >'{told}'", configuration.display());
        fs::write(&program, format!("#!/bin/sh\n{make} && exec squid -N -f '{told}'\n")).expect("a program");
        fs::set_permissions(&program, Permissions::from_mode(0o755)).expect("its mode");
        program
    }

    /// What a service's programs have said, each that was started.
    pub fn logs(&self, index: usize) -> Vec<String> {
        let written = (0..).map(|start| fs::read_to_string(self.log_of(index, start)));
        written.map_while(Result::ok).collect()
    }

    fn log_of(&self, index: usize, start: usize) -> PathBuf {
        self.scratch.file(&format!("{index}.{start}.log"))
    }

    /// Starts a service's program, perhaps once more, and waits until it listens. Where that is.
    pub fn start(&mut self, index: usize) -> Vec<SocketAddr> {
        let (product, cgroup) = (self.products[index], self.sandbox.ground().service(index));
        if product == Inspect {
            let (process, listeners) = start_inspect(&cgroup);
            self.processes.push((index, Process::Inspect(process)));
            return listeners;
        }
        let log = File::create(self.log_of(index, self.logs(index).len())).expect("a log");
        let mut command = self.command(product, &cgroup);
        command.env("PATH", path()).stdin(Stdio::null()).stdout(log.try_clone().expect("a descriptor")).stderr(log);
        let mut process = Started::by(&mut command);
        let port = product as u16;
        let processes = 1 + self.processes.iter().filter(|(of, _)| *of == index).count();
        until("a program to listen on both families", || {
            assert!(process.ended().is_none(), "{product:?} has ended:\n{:?}", self.logs(index).last());
            let found = listeners(port).expect("a list of listeners");
            let of = |v6| found.iter().filter(|at| at.address.is_ipv6() == v6).count();
            (of(false) >= processes && of(true) >= processes).then_some(())
        });
        self.processes.push((index, Process::Foreign(process)));
        ["127.0.0.1", "::1"].map(|ip| SocketAddr::new(ip.parse().expect("an address"), port)).into()
    }

    /// Kills the program of a service that was started last.
    pub fn kill(&mut self, index: usize) {
        let last = self.processes.iter().rposition(|(of, _)| *of == index).expect("it has one");
        match self.processes.remove(last).1 {
            Process::Foreign(mut process) => process.kill(),
            Process::Inspect(mut process) => process.kill(),
        }
    }

    fn command(&self, product: Product, cgroup: &Cgroup) -> Command {
        let written = |name: &str, more: &str| {
            let file = self.scratch.file(name);
            fs::write(&file, recipe(name) + more).expect("a configuration");
            file
        };
        let mut command;
        match product {
            Haproxy | HaproxyAgain => {
                let file = self.scratch.file(&format!("{product:?}.cfg"));
                let port = (product as u16).to_string();
                fs::write(&file, recipe("haproxy.cfg").replace("15001", &port)).expect("a configuration");
                command = enter(cgroup, "haproxy");
                command.args(["-db", "-f"]).arg(file);
            }
            Squid | SquidTproxy => {
                let name = if product == Squid { "squid.conf" } else { "squid-tproxy.conf" };
                command = enter(cgroup, "squid");
                command.args(["-N", "-d", "1", "-f"]).arg(written(name, SQUID_ALONE));
            }
            Nginx => {
                let place = self.scratch.file("nginx").display().to_string();
                fs::create_dir(&place).expect("a directory");
                let more = format!("pid {place}/pid; daemon off; error_log stderr;\n");
                command = enter(cgroup, "nginx");
                command.args(["-e", "stderr", "-p"]).arg(&place).arg("-c").arg(written("nginx.conf", &more));
            }
            Mitmproxy => {
                command = enter(cgroup, "sh");
                let line = written("mitmproxy.sh", "");
                command.arg(line).env("HOME", self.scratch.file("home"));
            }
            Inspect => unreachable!("it has no recipe"),
        }
        command
    }
}

/// A block of docs/services.md: it begins with three backquotes, the language and this name.
fn recipe(name: &str) -> String {
    let document = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/services.md");
    let text = fs::read_to_string(document).expect("the document");
    let wanted = |line: &&str| line.starts_with("```") && line.ends_with(&format!(" {name}"));
    let block = text.lines().skip_while(|line| !wanted(line)).skip(1).take_while(|line| !line.starts_with("```"));
    let block: String = block.map(|line| format!("{line}\n")).collect();
    assert!(!block.is_empty(), "docs/services.md has no {name}");
    block
}

fn start_inspect(cgroup: &Cgroup) -> (Running, Vec<SocketAddr>) {
    let mut command = Command::new(carnet());
    undisturbed(&mut command).arg("__inspect").arg("--cgroup").arg(cgroup.path());
    command.args(["--parent", &std::process::id().to_string()]);
    let mut process = Running::start(&mut command);
    let ready: Value = serde_json::from_str(&process.line()).expect("what it says first");
    let addresses = ready["ready"].as_array().expect("its addresses").iter();
    (process, addresses.map(|at| at.as_str().and_then(|at| at.parse().ok()).expect("an address")).collect())
}

/// What a squid of a test's must not do to the host's own one.
const SQUID_ALONE: &str = "
pid_filename none
access_log none
cache_log /dev/null
coredump_dir none
pinger_enable off
shutdown_lifetime 0 seconds
";
