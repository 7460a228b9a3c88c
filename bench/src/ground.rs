//! Where one cell is measured: cgroups, two network namespaces with a pair of interfaces between them, and a web server.
//!
//! ```text
//! cgroup2/carnet-bench.PID/{governed/{app, services/N}, server, engine}
//! this process's namespace (app, services) 10.99.0.1 ── veth ── 10.99.0.2 server's namespace
//! ```
//!
//! Namespaces and mounts are those of processes, and go with them. [`Ground`] removes the cgroups when it is dropped, and
//! the next run removes what a killed one has left.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use carnet_engine::cgroup::{Cgroup, Hierarchy};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

/// Where the server is.
pub const SERVER: &str = "10.99.0.2:80";

/// How long anything may take to start.
const PATIENCE: Duration = Duration::from_secs(20);

const PREFIX: &str = "carnet-bench.";

/// Who answers to what is measured.
pub struct Ground {
    /// The client's cgroup.
    pub app: Cgroup,
    /// The services', each in one of its own below.
    pub services: Cgroup,
    /// The server's.
    pub server: Cgroup,
    /// The daemon's.
    pub engine: Cgroup,
    /// Below the cgroup2 mount: what an engine is to govern.
    pub governed: String,
    top: Cgroup,
    scratch: PathBuf,
    children: Vec<Child>,
}

impl Ground {
    /// The calling process is in namespaces of its own from then on. It has to have one thread.
    pub fn new() -> Result<Self> {
        let hierarchy = Hierarchy::find()?;
        let name = format!("{PREFIX}{}", std::process::id());
        let top = Cgroup::create(&hierarchy, &name)?;
        let scratch = std::env::temp_dir().join(&name);
        let governed = top.child("governed")?;
        let mut ground = Self {
            app: governed.child("app")?,
            services: governed.child("services")?,
            server: top.child("server")?,
            engine: top.child("engine")?,
            governed: format!("/{name}/governed"),
            top,
            scratch,
            children: Vec::new(),
        };
        ground.prepare()?;
        Ok(ground)
    }

    /// A file of this ground's own.
    pub fn file(&self, name: &str) -> PathBuf {
        self.scratch.join(name)
    }

    /// The same, written. Everybody can read it.
    pub fn write(&self, name: &str, text: &str) -> Result<PathBuf> {
        let path = self.file(name);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    }

    /// The same cgroup once more.
    pub fn again(&self, cgroup: &Cgroup) -> Result<Cgroup> {
        Ok(Cgroup::open(&Hierarchy::find()?, cgroup.path())?)
    }

    /// That of a service: made, unless it is there.
    pub fn service(&self, index: usize) -> Result<Cgroup> {
        let path = self.services.path().join(index.to_string());
        if path.exists() {
            return Ok(Cgroup::open(&Hierarchy::find()?, &path)?);
        }
        Ok(self.services.child(&index.to_string())?)
    }

    /// Starts something that lives until this is dropped. What it says goes to a file of its name.
    pub fn start(&mut self, cgroup: &Cgroup, words: &[&str]) -> Result<u32> {
        let name =
            words.iter().rfind(|word| word.starts_with('/') || !word.contains(['-', '/', '.', ':', '='])).copied();
        let name = name.unwrap_or(words[0]).replace('/', "_");
        let log = fs::File::create(self.file(&format!("log-{}-{name}", self.children.len())))?;
        let mut command = within(cgroup, words);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let child = command.spawn().with_context(|| format!("cannot start {words:?}"))?;
        let id = child.id();
        self.children.push(child);
        Ok(id)
    }

    /// Waits until somebody listens on this port here. Who connected to see that would have a transparent relay connect to
    /// itself without end, since that is where the connection was going.
    pub fn wait_for_listener(&mut self, port: u16) -> Result<()> {
        let end = Instant::now() + PATIENCE;
        loop {
            let sockets = fs::read_to_string("/proc/self/net/tcp")?;
            if sockets.lines().any(|line| is_listener(line, port)) {
                return Ok(());
            }
            self.check_children()?;
            ensure!(Instant::now() < end, "nobody listens on port {port}\n{}", self.logs());
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Waits until a server answers there.
    pub fn wait_for(&mut self, address: &str) -> Result<()> {
        let address: SocketAddr = address.parse()?;
        let end = Instant::now() + PATIENCE;
        while TcpStream::connect_timeout(&address, Duration::from_millis(200)).is_err() {
            self.check_children()?;
            ensure!(Instant::now() < end, "nobody listens at {address}\n{}", self.logs());
            thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    /// Waits until this command says that it is so.
    pub fn wait_until(&mut self, words: &[&str]) -> Result<()> {
        let end = Instant::now() + PATIENCE;
        loop {
            let ended = Command::new(words[0]).args(&words[1..]).output().with_context(|| words[0].to_owned())?;
            if ended.status.success() {
                return Ok(());
            }
            self.check_children()?;
            let said = String::from_utf8_lossy(&ended.stderr).into_owned();
            ensure!(Instant::now() < end, "{words:?} does not succeed: {said}\n{}", self.logs());
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Fails where something has ended that should have lived on.
    pub fn check_children(&mut self) -> Result<()> {
        for child in &mut self.children {
            if let Some(status) = child.try_wait()? {
                let logs = self.logs();
                bail!("a program has ended, {status}\n{logs}");
            }
        }
        Ok(())
    }

    /// What all that was started has said, its last words.
    pub fn logs(&self) -> String {
        let entries = fs::read_dir(&self.scratch).into_iter().flatten().flatten().map(|entry| entry.path());
        let logs =
            entries.filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("log-")));
        logs.map(|path| {
            let text = fs::read_to_string(&path).unwrap_or_default();
            let from = text.len().saturating_sub(2000);
            format!("{}: {}\n", path.display(), text.get(from..).unwrap_or(&text))
        })
        .collect()
    }

    fn prepare(&mut self) -> Result<()> {
        fs::create_dir(&self.scratch).context("cannot make a folder")?;
        unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).context("namespaces of its own")?;
        let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        mount(None::<&str>, "/", None::<&str>, private, None::<&str>).context("private mounts")?;
        let bpf = self.file("bpf");
        fs::create_dir(&bpf)?;
        mount(Some("bpf"), &bpf, Some("bpf"), MsFlags::empty(), None::<&str>).context("a bpf file system")?;
        run("ip link set lo up")?;
        fs::write("/proc/sys/net/ipv4/ip_local_port_range", "16000 65535")?;
        // Ports are used again after a second, or a fast variant would run out of them first.
        fs::write("/proc/sys/net/ipv4/tcp_tw_reuse", "1")?;
        self.start_server()
    }

    fn start_server(&mut self) -> Result<()> {
        let large = fs::File::create(self.file("large"))?;
        large.set_len(64 << 20)?;
        let conf = SERVER_CONF.replace("SCRATCH", &self.scratch.to_string_lossy()).replace("BODY", &"x".repeat(1024));
        let conf = self.write("nginx.conf", &conf)?;
        let server = self.again(&self.server)?;
        let pid = self.start(&server, &["unshare", "--net", "nginx", "-c", &conf.to_string_lossy()])?;
        let theirs = PathBuf::from(format!("/proc/{pid}/ns/net"));
        let own = fs::read_link("/proc/self/ns/net")?;
        let end = Instant::now() + PATIENCE;
        while fs::read_link(&theirs)? == own {
            self.check_children()?;
            ensure!(Instant::now() < end, "the server has no namespace of its own");
            thread::sleep(Duration::from_millis(2));
        }
        run(&format!("ip link add bench0 type veth peer name bench1 netns {pid}"))?;
        run("ip addr add 10.99.0.1/24 dev bench0")?;
        run("ip link set bench0 up")?;
        for there in ["link set lo up", "addr add 10.99.0.2/24 dev bench1", "link set bench1 up"] {
            run(&format!("nsenter --net={} ip {there}", theirs.display()))?;
        }
        self.wait_for(SERVER)
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        for child in &mut self.children {
            // Fails where it has ended.
            let _ = child.kill();
        }
        let _ = self.top.kill();
        for child in &mut self.children {
            let _ = child.wait();
        }
        if let Err(error) = self.top.remove_tree(PATIENCE) {
            eprintln!("{error}");
        }
        let _ = nix::mount::umount2(&self.file("bpf"), nix::mount::MntFlags::MNT_DETACH);
        let _ = fs::remove_dir_all(&self.scratch);
    }
}

/// Of /proc/net/tcp: number, local and remote address in hexadecimal digits, state, ...
fn is_listener(line: &str, port: u16) -> bool {
    let mut words = line.split_whitespace().skip(1);
    let has_port = words.next().is_some_and(|local| local.ends_with(&format!(":{port:04X}")));
    has_port && words.nth(1) == Some("0A")
}

/// Removes what runs have left that were killed.
pub fn sweep() -> Result<()> {
    let hierarchy = Hierarchy::find()?;
    for folder in [hierarchy.mount(), &std::env::temp_dir()] {
        for entry in fs::read_dir(folder)?.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let Some(pid) = name.strip_prefix(PREFIX) else { continue };
            if Path::new("/proc").join(pid).exists() {
                continue;
            }
            if folder == hierarchy.mount() {
                let cgroup = Cgroup::open(&hierarchy, &entry.path())?;
                cgroup.kill()?;
                cgroup.remove_tree(PATIENCE)?;
            } else {
                fs::remove_dir_all(entry.path())?;
            }
        }
    }
    Ok(())
}

/// A command that begins in this cgroup and ends with the process that starts it.
pub fn within(cgroup: &Cgroup, words: &[&str]) -> Command {
    let mut command = Command::new("sh");
    let join = "echo $$ > \"$0\" && ulimit -n $(ulimit -Hn) && exec setpriv --pdeathsig KILL \"$@\"";
    command.args(["-c", join]).arg(cgroup.path().join("cgroup.procs")).args(words);
    command
}

/// Runs a command to its good end.
pub fn run(words: &str) -> Result<()> {
    let mut parts = words.split(' ');
    let program = parts.next().unwrap_or_default();
    let status = Command::new(program).args(parts).status().with_context(|| format!("{program} does not start"))?;
    ensure!(status.success(), "{words}: {status}");
    Ok(())
}

const SERVER_CONF: &str = "
daemon off;
worker_processes 2;
pid SCRATCH/nginx.pid;
error_log stderr error;
events { worker_connections 30000; multi_accept on; }
http {
    access_log off;
    sendfile on;
    tcp_nopush on;
    default_type text/plain;
    keepalive_requests 1000000000;
    keepalive_timeout 1h;
    client_body_temp_path SCRATCH/t1;
    proxy_temp_path SCRATCH/t2;
    fastcgi_temp_path SCRATCH/t3;
    uwsgi_temp_path SCRATCH/t4;
    scgi_temp_path SCRATCH/t5;
    server {
        listen 80 backlog=4096 reuseport;
        location = / { return 200 'BODY'; }
        location = /large { root SCRATCH; sendfile_max_chunk 1m; }
    }
}
";

#[cfg(test)]
mod tests {
    use super::is_listener;

    #[test]
    fn a_listener_is_seen_by_its_port_and_state() {
        let line = "   0: 0100007F:3A99 00000000:0000 0A 00000000:00000000 00:00000000 00000000 65534 0 1 1";
        assert!(is_listener(line, 15001) && !is_listener(line, 15002));
        assert!(!is_listener(&line.replace("0A", "01"), 15001));
    }
}
