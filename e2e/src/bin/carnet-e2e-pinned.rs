//! A process that has a pinned engine, and a client that connects without end. Each ends with its standard input.
//!
//! | command | what it does |
//! | --- | --- |
//! | `pinned FOLDER GOVERNED SERVICE LISTENER` | loads an engine that redirects everything to the service, pins it, then attaches it; prints `attached` |
//! | `attached FOLDER GOVERNED SERVICE LISTENER` | the same, but pins it once it is attached |
//! | `adopts FOLDER` | adopts an engine; prints what it found |
//! | `connects DESTINATION` | connects and waits for a byte, again and again. For each line it reads it prints how often that went well, how often not, and the first error |
#![forbid(unsafe_code)]

use std::io::{self, BufRead, Read, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use std::{env, process, thread};

use anyhow::{Context, Result, bail, ensure};
use carnet_e2e::redirect_all;
use carnet_e2e::sockets::stream;
use carnet_engine::cgroup::{Cgroup, Hierarchy};
use carnet_engine::{Engine, Options};
use carnet_policy::{OnDead, Owner, Policy, Provider, Reach, Service, SockName};

fn main() -> Result<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["pinned", folder, governed, service, listener] => {
            let (mut engine, cgroups) = load(governed, service, listener.parse()?)?;
            engine.pin(Path::new(folder))?;
            attach(&mut engine, &cgroups)?;
            hold(&engine, "attached")
        }
        ["attached", folder, governed, service, listener] => {
            let (mut engine, cgroups) = load(governed, service, listener.parse()?)?;
            attach(&mut engine, &cgroups)?;
            engine.pin(Path::new(folder))?;
            hold(&engine, "attached")
        }
        ["adopts", folder] => {
            let adopted = Engine::adopt(Path::new(folder), &Options::default())?.context("there is no engine")?;
            hold(&adopted.engine, &adopted.to_string())
        }
        ["connects", destination] => connect_without_end(destination.parse()?),
        _ => bail!("usage: carnet-e2e-pinned pinned|attached|adopts|connects ..."),
    }
}

/// Governed, and the service's.
fn load(governed: &str, service: &str, listener: SocketAddr) -> Result<(Engine, [Cgroup; 2])> {
    let hierarchy = Hierarchy::find()?;
    let governed = Cgroup::open(&hierarchy, Path::new(governed))?;
    let service = Cgroup::open(&hierarchy, Path::new(service))?;
    let mut engine = Engine::load(&governed, &Options::default())?;
    let provider = Provider {
        name: "service".into(),
        handle: 1,
        rank: 10,
        service: Service::Aware,
        on_dead: OnDead::Closed,
        direct: false,
        owners: vec![Owner::Cgroup { id: service.id(), level: service.level() }],
        listeners: vec![listener],
        in_flight_limit: 0,
        reach: Reach::Routes,
        sockname: SockName::Own,
        filters: vec![redirect_all()],
    };
    let policy = Policy { providers: vec![provider], ..Policy::default() };
    engine.apply(&policy.compile(1)?)?;
    Ok((engine, [governed, service]))
}

fn attach(engine: &mut Engine, [governed, service]: &[Cgroup; 2]) -> Result<()> {
    engine.attach_services(service)?;
    Ok(engine.attach_governed(governed)?)
}

fn hold(_engine: &Engine, say: &str) -> Result<()> {
    println!("{say}");
    io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

#[derive(Default)]
struct Tally {
    good: AtomicU64,
    bad: AtomicU64,
    first_error: OnceLock<String>,
}

fn connect_without_end(to: SocketAddr) -> Result<()> {
    let tally = Arc::new(Tally::default());
    for _ in 0..THREADS {
        let tally = Arc::clone(&tally);
        thread::spawn(move || {
            loop {
                match connect(to) {
                    Ok(()) => tally.good.fetch_add(1, Ordering::Relaxed),
                    Err(error) => {
                        let _ = tally.first_error.set(format!("{error:#}"));
                        tally.bad.fetch_add(1, Ordering::Relaxed)
                    }
                };
            }
        });
    }
    for line in io::stdin().lock().lines() {
        line?;
        let (good, bad) = (tally.good.load(Ordering::Relaxed), tally.bad.load(Ordering::Relaxed));
        println!("{good} {bad} {}", tally.first_error.get().map_or("none", String::as_str));
        io::stdout().flush()?;
    }
    process::exit(0)
}

/// The service says a byte when it knows where the connection was going.
fn connect(to: SocketAddr) -> Result<()> {
    let socket = stream(to);
    socket.set_read_timeout(Some(Duration::from_secs(20)))?;
    // It ends with a reset, so that no port is in use afterwards.
    socket.set_linger(Some(Duration::ZERO))?;
    socket.connect(&to.into()).context("connect")?;
    let peer = socket.peer_addr()?.as_socket();
    ensure!(peer == Some(to), "the peer is {peer:?}");
    let mut byte = [0];
    (&socket).read_exact(&mut byte).context("read")?;
    ensure!(byte == *b"y", "the service says {byte:?}");
    Ok(())
}

const THREADS: usize = 2;
