//! Who redirects, and to whom. A variant that cannot be had here is named with the reason, and left out.

mod programs;

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;
use carnet_engine::cgroup::Cgroup;

use crate::ground::{Ground, run};

/// One row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Variant {
    /// In the table and on the command line.
    pub name: &'static str,
    /// For people.
    pub what: &'static str,
    way: Way,
    /// Most flows that are held at a time. Python keeps far more of each.
    pub flows: usize,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Way {
    Direct,
    Unmatched,
    NftHaproxy {
        splice: bool,
    },
    CarnetHaproxy,
    /// So many services, one behind the other.
    Carnet(usize),
    NftRedsocks,
    Proxychains,
    Tun2proxy,
    NftMitmproxy,
    MitmproxyLocal,
}

/// All that are compared.
pub const ALL: [Variant; 14] = [
    Variant { name: "direct", what: "nothing between", way: Way::Direct, flows: 10_000 },
    Variant { name: "unmatched", what: "Carnet attached, no filter matches", way: Way::Unmatched, flows: 10_000 },
    Variant {
        name: "nft-haproxy",
        what: "nft REDIRECT, HAProxy",
        way: Way::NftHaproxy { splice: false },
        flows: 10_000,
    },
    Variant {
        name: "nft-haproxy-splice",
        what: "nft REDIRECT, HAProxy with splice-auto",
        way: Way::NftHaproxy { splice: true },
        flows: 5000,
    },
    Variant { name: "carnet-haproxy", what: "Carnet, the same HAProxy", way: Way::CarnetHaproxy, flows: 10_000 },
    Variant { name: "carnet", what: "Carnet, its built-in service", way: Way::Carnet(1), flows: 10_000 },
    Variant { name: "carnet-2", what: "two built-in services in a chain", way: Way::Carnet(2), flows: 10_000 },
    Variant { name: "carnet-3", what: "three", way: Way::Carnet(3), flows: 10_000 },
    Variant { name: "carnet-4", what: "four", way: Way::Carnet(4), flows: 10_000 },
    Variant { name: "nft-redsocks", what: "nft REDIRECT, redsocks, microsocks", way: Way::NftRedsocks, flows: 1000 },
    Variant { name: "proxychains", what: "proxychains4, microsocks", way: Way::Proxychains, flows: 1000 },
    Variant { name: "tun2proxy", what: "tun2proxy, microsocks", way: Way::Tun2proxy, flows: 1000 },
    Variant { name: "nft-mitmproxy", what: "nft REDIRECT, mitmproxy", way: Way::NftMitmproxy, flows: 200 },
    Variant { name: "mitmproxy-local", what: "mitmproxy, local capture", way: Way::MitmproxyLocal, flows: 200 },
];

impl Variant {
    /// That of this name.
    pub fn named(name: &str) -> Option<Self> {
        ALL.into_iter().find(|variant| variant.name == name)
    }

    /// Why it cannot be measured here.
    pub fn missing(self) -> Option<String> {
        let needs: &[&str] = match self.way {
            Way::Direct => &[],
            Way::Unmatched | Way::Carnet(_) => &["carnet"],
            Way::NftHaproxy { .. } => &["nft", "haproxy"],
            Way::CarnetHaproxy => &["carnet", "haproxy"],
            Way::NftRedsocks => &["nft", "redsocks", "microsocks"],
            Way::Proxychains => &["proxychains4", "microsocks"],
            Way::Tun2proxy => &["tun2proxy-bin", "microsocks"],
            Way::NftMitmproxy => &["nft", "mitmdump"],
            Way::MitmproxyLocal => {
                return Some("not tried: it needs mitmproxy 12, and attaches to the whole host's cgroup".into());
            }
        };
        let missing: Vec<_> = needs.iter().filter(|need| program(need).is_none()).copied().collect();
        (!missing.is_empty()).then(|| format!("{} not found", missing.join(", ")))
    }

    /// Whether somebody is between the client and the server. Then that somebody must have had work.
    pub fn has_service(self) -> bool {
        !matches!(self.way, Way::Direct | Way::Unmatched)
    }

    /// Starts all that it takes. What the client's command begins with.
    pub fn set_up(self, ground: &mut Ground) -> Result<Vec<String>> {
        match self.way {
            Way::Direct => {}
            Way::Unmatched => programs::carnet(ground, UNMATCHED)?,
            Way::NftHaproxy { splice } => {
                let cgroup = ground.service(0)?;
                programs::haproxy(ground, &cgroup, splice)?;
                redirect_by_nft(ground)?;
            }
            Way::CarnetHaproxy => {
                let cgroup = ground.service(0)?;
                programs::haproxy(ground, &cgroup, false)?;
                let policy = provider(ground, 0, "unaware");
                programs::carnet(ground, &policy)?;
            }
            Way::Carnet(count) => {
                let mut policy = String::new();
                for index in 0..count {
                    let cgroup = ground.service(index)?;
                    programs::inspect(ground, &cgroup, index)?;
                    policy += &provider(ground, index, "aware");
                }
                programs::carnet(ground, &policy)?;
            }
            Way::NftRedsocks => {
                let cgroup = ground.service(0)?;
                programs::microsocks(ground, &cgroup)?;
                programs::redsocks(ground, &cgroup)?;
                redirect_by_nft(ground)?;
            }
            Way::Proxychains => {
                let cgroup = ground.service(0)?;
                programs::microsocks(ground, &cgroup)?;
                let conf = "strict_chain\nquiet_mode\ntcp_connect_time_out 5000\ntcp_read_time_out 5000\n[ProxyList]\nsocks5 127.0.0.1 1080\n";
                let conf = ground.write("proxychains.conf", conf)?;
                return Ok(vec!["proxychains4".into(), "-q".into(), "-f".into(), conf.display().to_string()]);
            }
            Way::Tun2proxy => {
                let cgroup = ground.service(0)?;
                programs::microsocks(ground, &cgroup)?;
                programs::tun2proxy(ground, &cgroup)?;
            }
            Way::NftMitmproxy => {
                let cgroup = ground.service(0)?;
                programs::mitmproxy(ground, &cgroup)?;
                redirect_by_nft(ground)?;
            }
            Way::MitmproxyLocal => {}
        }
        Ok(Vec::new())
    }
}

/// An engine before a service that a caller has started: where to start it, and what to do once it listens.
pub fn before_own_service(ground: &mut Ground, start: impl FnOnce(&mut Ground, &Cgroup) -> Result<()>) -> Result<()> {
    let cgroup = ground.service(0)?;
    start(ground, &cgroup)?;
    ground.wait_for_listener(port(0))?;
    let policy = provider(ground, 0, "aware");
    programs::carnet(ground, &policy)
}

/// Where a service listens.
fn port(index: usize) -> u16 {
    15001 + index as u16
}

/// In the words of a policy file.
fn provider(ground: &Ground, index: usize, records: &str) -> String {
    let (governed, rank, port) = (&ground.governed, 10 * (index + 1), port(index));
    format!(
        "[[provider]]\nname = \"s{index}\"\nrank = {rank}\nlisten = [\"127.0.0.1:{port}\"]\nowner = {{ cgroup = \
         \"{governed}/services/{index}\" }}\nrecords = \"{records}\"\n[[provider.filter]]\nname = \"all\"\nmatch = {{ remote = \
         [\"10.99.0.0/24\"] }}\naction = \"redirect\"\n"
    )
}

/// The client is root, and the services are nobody's.
fn redirect_by_nft(ground: &Ground) -> Result<()> {
    let rules = "table ip bench {\nchain out {\ntype nat hook output priority -100\n\
                 ip daddr 10.99.0.0/24 meta l4proto tcp meta skuid 0 redirect to :15001\n}\n}\n";
    let file = ground.write("nft", rules)?;
    run(&format!("nft -f {}", file.display()))
}

/// Where a program is.
pub fn program(name: &str) -> Option<PathBuf> {
    if name == "carnet" {
        return env::var_os("CARNET").map(PathBuf::from).filter(|path| path.is_file());
    }
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = env::split_paths(&path).chain(["/usr/sbin", "/sbin"].map(|folder| Path::new(folder).to_owned()));
    folders.map(|folder| folder.join(name)).find(|path| path.is_file())
}

/// What a program says of its version, for the report.
pub fn version(name: &str) -> String {
    let flag = if name == "haproxy" { "-v" } else { "--version" };
    let said = program(name).and_then(|path| Command::new(path).arg(flag).output().ok());
    let said = said.map(|ended| String::from_utf8_lossy(&ended.stdout).lines().next().unwrap_or_default().to_owned());
    // Without the address of its site.
    let said = said.map(|line| line.split(" - http").next().unwrap_or_default().to_owned());
    said.filter(|line| !line.is_empty()).unwrap_or_else(|| "version not told".into())
}

/// Two filters that do not match what the client does.
const UNMATCHED: &str = "[[provider]]
name = \"elsewhere\"
rank = 10
listen = [\"127.0.0.1:15001\"]
owner = { uid = 65533 }
on-dead = \"closed\"
[[provider.filter]]
name = \"other addresses\"
match = { remote = [\"192.0.2.0/24\"], remote-port = 443 }
action = \"redirect\"
";
