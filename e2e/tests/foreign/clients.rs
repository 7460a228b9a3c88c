//! Clients in four languages. All check the bodies that they get.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use carnet_e2e::origin::body_of;
use carnet_e2e::programs::{foreign, program, require, succeed};

use crate::stage::{Stage, Target};

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Client {
    /// With libcurl's blocking waits around non-blocking connects.
    Curl,
    /// Static: no C library that anything could be preloaded into.
    Go,
    /// Many connections at the same time from one thread.
    Python,
    /// Dual-stack sockets: IPv4 addresses are v4-mapped.
    Java,
}

impl Client {
    pub const ALL: [Self; 4] = [Self::Curl, Self::Go, Self::Python, Self::Java];

    /// Connections that it makes for each target.
    pub fn times(self) -> usize {
        if self == Self::Python { 10 } else { 1 }
    }

    /// The name of its process, or how that begins.
    pub fn program(self) -> &'static str {
        match self {
            Self::Curl => "curl",
            Self::Go => "go-client",
            Self::Python => "python",
            Self::Java => "",
        }
    }

    /// The command that fetches these targets.
    pub fn command(self, stage: &Stage, trusted: &str, targets: &[Target]) -> Vec<String> {
        let urls = targets.iter().map(|target| target.url.clone());
        let placed = targets.iter().map(|target| format!("{}@{}", target.url, target.address.ip()));
        match self {
            Self::Curl => curl(stage, trusted, targets),
            Self::Go => [shown(&built("go-client")), trusted.into()].into_iter().chain(placed).collect(),
            Self::Python => {
                let script = shown(&foreign("client.py"));
                ["python3".into(), script, trusted.into(), self.times().to_string()].into_iter().chain(placed).collect()
            }
            Self::Java => {
                let hosts = stage.file("hosts");
                fs::write(&hosts, "127.0.0.1 origin4.test\n::1 origin6.test\n").expect("a hosts file");
                let fast = ["java", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC"].map(str::to_owned);
                let hosts = format!("-Djdk.net.hosts.file={}", shown(&hosts));
                let class = ["-cp".into(), shown(&built("")), "Client".into(), trusted.into()];
                fast.into_iter().chain([hosts]).chain(class).chain(urls).collect()
            }
        }
    }

    /// Checks what only the client can know: the peers it saw.
    pub fn check_output(self, stage: &Stage, output: &str, targets: &[Target]) {
        let expected = |target: &Target| vec![target.address.to_string(); self.times()];
        match self {
            Self::Curl => {
                for (place, target) in targets.iter().enumerate() {
                    let body = fs::read_to_string(stage.file(&format!("body-{place}"))).expect("a body");
                    assert_eq!(body, body_of(&target.path), "{}", target.url);
                }
                let peers: Vec<_> = CurlTransfer::all(output).iter().map(|transfer| transfer.peer).collect();
                assert_eq!(peers, targets.iter().map(|target| target.address).collect::<Vec<_>>());
            }
            Self::Go | Self::Python => {
                let mut peers: Vec<_> = output.lines().map(str::to_owned).collect();
                let mut expected: Vec<_> = targets.iter().flat_map(expected).collect();
                peers.sort();
                expected.sort();
                assert_eq!(peers, expected);
            }
            Self::Java => assert_eq!(output, ""),
        }
    }
}

/// What curl says of one transfer.
pub struct CurlTransfer {
    /// The peer that its socket has.
    pub peer: SocketAddr,
    /// Bytes of the request, and of the answer.
    pub bytes: (u64, u64),
}

impl CurlTransfer {
    /// From curl's output, in the order of the targets.
    pub fn all(output: &str) -> Vec<Self> {
        output
            .lines()
            .map(|line| Self::read(line).unwrap_or_else(|| panic!("not what curl was to say: {line}")))
            .collect()
    }

    fn read(line: &str) -> Option<Self> {
        let mut words = line.split(' ');
        let peer = SocketAddr::new(words.next()?.parse().ok()?, words.next()?.parse().ok()?);
        let mut number = || words.next()?.parse::<u64>().ok();
        Some(Self { peer, bytes: (number()?, number()? + number()?) })
    }
}

fn curl(stage: &Stage, trusted: &str, targets: &[Target]) -> Vec<String> {
    let format = "%{remote_ip} %{remote_port} %{size_request} %{size_header} %{size_download}\n";
    let fixed = ["curl", "-sS", "--max-time", "20", "--cacert", trusted, "-w", format].map(str::to_owned);
    let each = |(place, target): (usize, &Target)| {
        let resolve = format!("{}:{}:{}", target.host, target.address.port(), target.address.ip());
        let file = shown(&stage.file(&format!("body-{place}")));
        ["--resolve".into(), resolve, "-o".into(), file, target.url.clone()]
    };
    fixed.into_iter().chain(targets.iter().enumerate().flat_map(each)).collect()
}

/// Compiles the clients that need it, and the service in Go; once, whatever tests run at the same time.
pub fn build() {
    require(&["go", "java", "javac"]);
    fs::create_dir_all(built("")).expect("a directory below the target directory");
    let lock = File::create(built("lock")).expect("a lock file");
    lock.lock().expect("the lock");
    for (result, source) in [("go-client", "client.go"), ("go-service", "service.go")] {
        if is_older(&built(result), &foreign(source)) {
            let mut go = program("go");
            go.env("CGO_ENABLED", "0").env("GOTOOLCHAIN", "local").env("GOPROXY", "off").env("GOFLAGS", "");
            go.env("GOCACHE", built("go-cache")).env("GOPATH", built("go-path"));
            succeed(go.arg("build").arg("-o").arg(built(result)).arg(foreign(source)));
        }
    }
    if is_older(&built("Client.class"), &foreign("Client.java")) {
        succeed(program("javac").arg("-d").arg(built("")).arg(foreign("Client.java")));
    }
}

fn is_older(result: &Path, source: &Path) -> bool {
    let changed = |path: &Path| path.metadata().and_then(|metadata| metadata.modified()).ok();
    changed(result) < changed(source)
}

/// What [`build`] has made.
pub fn built(file: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("foreign").join(file)
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}
