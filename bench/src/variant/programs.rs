//! How each program is started, with the settings that are best for it.

use std::os::unix::fs::chown;

use anyhow::{Context, Result};
use carnet_engine::cgroup::Cgroup;

use super::{port, program};
use crate::ground::{Ground, run};

const NOBODY: [&str; 4] = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];

/// The daemon, until its policy is in force and its providers are alive.
pub fn carnet(ground: &mut Ground, policy: &str) -> Result<()> {
    let policy = ground.write("policy.toml", policy)?.display().to_string();
    let carnet = program("carnet").context("CARNET is not the path of the command")?.display().to_string();
    let [socket, state, pins] =
        ["run/control.sock", "run", "bpf/carnet"].map(|name| ground.file(name).display().to_string());
    std::fs::create_dir(&state)?;
    let governed = ground.governed.clone();
    let words = [
        &carnet, "serve", "--cgroup", &governed, "--policy", &policy, "--socket", &socket, "--state", &state, "--pins",
        &pins,
    ];
    let cgroup = ground.again(&ground.engine)?;
    ground.start(&cgroup, &words)?;
    ground.wait_until(&[&carnet, "status", "--socket", &socket])
}

/// The built-in service.
pub fn inspect(ground: &mut Ground, cgroup: &Cgroup, index: usize) -> Result<()> {
    let carnet = program("carnet").context("CARNET is not the path of the command")?.display().to_string();
    let listen = format!("127.0.0.1:{}", port(index));
    ground.start(cgroup, &[&NOBODY[..], &[&carnet, "proxy", "--listen", &listen, "--max-flows", "20000"]].concat())?;
    ground.wait_for_listener(port(index))
}

/// HAProxy as a plain relay: a thread for each processor, no log, as many connections as there are files for.
pub fn haproxy(ground: &mut Ground, cgroup: &Cgroup, splice: bool) -> Result<()> {
    let threads = std::thread::available_parallelism()?;
    let splice = if splice { "option splice-auto" } else { "" };
    let conf = format!(
        "global\n nbthread {threads}\n tune.maxaccept 64\ndefaults\n mode tcp\n {splice}\n timeout connect 5s\n \
         timeout client 1h\n timeout server 1h\nlisten redirected\n bind 127.0.0.1:15001 backlog 4096\n server \
         original *\n"
    );
    let conf = ground.write("haproxy.cfg", &conf)?.display().to_string();
    ground.start(cgroup, &[&NOBODY[..], &["haproxy", "-db", "-f", &conf]].concat())?;
    ground.wait_for_listener(15001)
}

/// A SOCKS server.
pub fn microsocks(ground: &mut Ground, cgroup: &Cgroup) -> Result<()> {
    ground.start(cgroup, &[&NOBODY[..], &["microsocks", "-i", "127.0.0.1", "-p", "1080"]].concat())?;
    ground.wait_for_listener(1080)
}

/// From nft to that.
pub fn redsocks(ground: &mut Ground, cgroup: &Cgroup) -> Result<()> {
    let conf = "base { log_debug = off; log_info = off; daemon = off; redirector = iptables; rlimit_nofile = 20000;
        redsocks_conn_max = 9000; }
        redsocks { local_ip = 127.0.0.1; local_port = 15001; ip = 127.0.0.1; port = 1080; type = socks5; listenq = 4096; }\n";
    let conf = ground.write("redsocks.conf", conf)?.display().to_string();
    ground.start(cgroup, &[&NOBODY[..], &["redsocks", "-c", &conf]].concat())?;
    ground.wait_for_listener(15001)
}

/// Root's connections to the server go into its TUN device. The SOCKS server is nobody's, whose do not.
pub fn tun2proxy(ground: &mut Ground, cgroup: &Cgroup) -> Result<()> {
    run("ip tuntap add name tun0 mode tun")?;
    run("ip link set tun0 up")?;
    run("ip route add 10.99.0.0/24 dev tun0 table 99")?;
    run("ip rule add uidrange 0-0 lookup 99 priority 99")?;
    let words = ["tun2proxy-bin", "--tun", "tun0", "--proxy", "socks5://127.0.0.1:1080", "--verbosity", "off"];
    ground.start(cgroup, &words)?;
    ground.wait_for(crate::ground::SERVER)
}

/// mitmproxy without a log, passing large bodies on as they come.
pub fn mitmproxy(ground: &mut Ground, cgroup: &Cgroup) -> Result<()> {
    let folder = ground.file("mitmproxy");
    std::fs::create_dir(&folder)?;
    chown(&folder, Some(65534), Some(65534))?;
    let place = format!("confdir={}", folder.display());
    let listen = ["--mode", "transparent", "--listen-host", "127.0.0.1", "-p", "15001"];
    let set = ["-q", "--set", &place, "--set", "stream_large_bodies=64k", "--set", "connection_strategy=lazy"];
    ground.start(cgroup, &[&NOBODY[..], &["env", "HOME=/", "mitmdump"], &listen, &set].concat())?;
    ground.wait_for_listener(15001)
}
