//! One state of the engine: connections alone, options of sockets, and the programs' run times.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::hint::black_box;
use std::net::TcpListener;
use std::os::unix::fs::MetadataExt;
use std::process::Stdio;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use carnet::Redirect;
use carnet_engine::cgroup::Cgroup;
use libbpf_rs::query::{LinkInfoIter, LinkTypeInfo, ProgInfoIter};
use socket2::{Domain, SockRef, Socket, Type};

use super::Part;
use crate::ground::{Ground, SERVER, within};
use crate::load::Outcome;
use crate::variant::{self, Variant};

#[derive(clap::Args)]
pub struct Arguments {
    /// A variant; `asked`, or `service` and `options`, which it starts itself
    state: String,
    #[arg(long, default_value = "1")]
    seconds: f64,
    /// The programs' run times alone
    #[arg(long)]
    programs: bool,
}

/// How often a call is made to be timed.
const CALLS: u32 = 100_000;

/// Measures one state, and prints parts as JSON.
pub fn calls(arguments: &Arguments) -> Result<()> {
    let parts = match arguments.state.as_str() {
        "service" => service()?,
        "options" => options()?,
        "asked" => asked()?,
        state => in_state(state, arguments)?,
    };
    println!("{}", serde_json::to_string(&parts)?);
    Ok(())
}

fn in_state(state: &str, arguments: &Arguments) -> Result<Vec<Part>> {
    let variant = Variant::named(state).context("no such variant")?;
    let mut ground = Ground::new()?;
    variant.set_up(&mut ground)?;
    if arguments.programs {
        let before = programs(&ground)?;
        load(&ground, "new", arguments.seconds)?;
        let after = programs(&ground)?;
        return Ok(run_times(&before, &after));
    }
    let connects = load(&ground, "connect", arguments.seconds)?;
    let mut parts = vec![
        Part { name: "connect() and reset, a second".into(), value: connects.done as f64 / connects.seconds },
        Part { name: "connect(), median ns".into(), value: f64::from(connects.connect[connects.connect.len() / 2]) },
    ];
    let outside = named(part_of(&ground.app, "options")?, "app: ");
    parts.extend(outside);
    if state == "carnet" {
        let place = ground.service(0)?;
        parts.extend(named(part_of(&place, "options")?, "service: "));
    }
    ground.check_children()?;
    Ok(parts)
}

/// QUERY and SET, by a service of our own in the place of the built-in one.
fn asked() -> Result<Vec<Part>> {
    let mut ground = Ground::new()?;
    let own = std::env::current_exe()?.display().to_string();
    let mut child = None;
    variant::before_own_service(&mut ground, |_, cgroup| {
        child = Some(within(cgroup, &[&own, "calls", "service"]).stdout(Stdio::piped()).spawn()?);
        Ok(())
    })?;
    let client =
        within(&ground.app, &[&own, "load", "hold", SERVER]).stdin(Stdio::piped()).stderr(Stdio::null()).spawn();
    let mut client = client.context("the client")?;
    let output = child.context("the service")?.wait_with_output()?;
    let _ = client.kill();
    client.wait()?;
    ensure!(output.status.success(), "the service: {}", output.status);
    serde_json::from_slice(&output.stdout).context("what it says")
}

/// Accepts until a connection has been redirected, and asks about that one over and over.
fn service() -> Result<Vec<Part>> {
    let listener = TcpListener::bind("127.0.0.1:15001")?;
    let accepted = loop {
        let (accepted, _) = listener.accept()?;
        // The one that looks whether somebody listens has not been redirected.
        if Redirect::of(&accepted).flow().is_ok() {
            break accepted;
        }
    };
    let records = Redirect::of(&accepted).records()?;
    let next = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    let redirect = Redirect::of(&accepted);
    let query = timed(|| redirect.records().map(black_box).map(drop).map_err(Into::into))?;
    let flow = timed(|| redirect.flow().map(black_box).map(drop).map_err(Into::into))?;
    let set = timed(|| Ok(records.apply_to(&next)?))?;
    let original = timed(|| SockRef::from(&accepted).original_dst_v4().map(black_box).map(drop).map_err(Into::into))?;
    Ok(vec![
        Part { name: "QUERY of the record, ns".into(), value: query },
        Part { name: "QUERY of the flow, ns".into(), value: flow },
        Part { name: "SET, ns".into(), value: set },
        Part { name: "SO_ORIGINAL_DST, ns".into(), value: original },
    ])
}

fn named(parts: Vec<Part>, place: &str) -> Vec<Part> {
    parts.into_iter().map(|part| Part { name: format!("{place}{}", part.name), ..part }).collect()
}

fn part_of(cgroup: &Cgroup, what: &str) -> Result<Vec<Part>> {
    let own = std::env::current_exe()?.display().to_string();
    let output = within(cgroup, &[&own, "calls", what]).stderr(Stdio::inherit()).output()?;
    ensure!(output.status.success(), "{what} in {}: {}", cgroup.path().display(), output.status);
    serde_json::from_slice(&output.stdout).context("what it says")
}

fn load(ground: &Ground, kind: &str, seconds: f64) -> Result<Outcome> {
    let own = std::env::current_exe()?.display().to_string();
    let output = within(&ground.app, &[&own, "load", kind, SERVER, "--seconds", &seconds.to_string()]).output()?;
    ensure!(output.status.success(), "the client: {}", String::from_utf8_lossy(&output.stderr));
    let outcome: Outcome = serde_json::from_slice(&output.stdout)?;
    ensure!(outcome.done > 0 && outcome.failed == 0, "{} done, {} failed", outcome.done, outcome.failed);
    Ok(outcome)
}

/// Options that are none of Carnet's.
fn options() -> Result<Vec<Part>> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    let get = timed(|| Ok(socket.tcp_nodelay()?))?;
    let set = timed(|| Ok(socket.set_tcp_nodelay(true)?))?;
    Ok(vec![Part { name: "getsockopt, ns".into(), value: get }, Part { name: "setsockopt, ns".into(), value: set }])
}

fn timed<T>(mut call: impl FnMut() -> Result<T>) -> Result<f64> {
    let begin = Instant::now();
    for _ in 0..CALLS {
        black_box(call()?);
    }
    Ok(begin.elapsed().as_nanos() as f64 / f64::from(CALLS))
}

/// Run time and runs of each program that is attached to a cgroup of this ground, by its name.
fn programs(ground: &Ground) -> Result<BTreeMap<String, (u64, u64)>> {
    let mut cgroups = BTreeSet::new();
    let mut folders = vec![ground.app.path().parent().context("it is governed")?.to_owned()];
    while let Some(folder) = folders.pop() {
        cgroups.insert(fs::metadata(&folder)?.ino());
        folders.extend(fs::read_dir(&folder)?.flatten().map(|entry| entry.path()).filter(|path| path.is_dir()));
    }
    let ours = |info: &LinkTypeInfo| matches!(info, LinkTypeInfo::Cgroup(on) if cgroups.contains(&on.cgroup_id));
    let ids: BTreeSet<u32> = LinkInfoIter::default().filter(|link| ours(&link.info)).map(|link| link.prog_id).collect();
    let mut found = BTreeMap::new();
    for program in ProgInfoIter::default().filter(|program| ids.contains(&program.id)) {
        let entry = found.entry(program.name.to_string_lossy().into_owned()).or_insert((0, 0));
        *entry = (entry.0 + program.run_time_ns, entry.1 + program.run_cnt);
    }
    ensure!(!found.is_empty(), "no program is attached");
    Ok(found)
}

fn run_times(before: &BTreeMap<String, (u64, u64)>, after: &BTreeMap<String, (u64, u64)>) -> Vec<Part> {
    let mut parts = Vec::new();
    for (name, &(time, runs)) in after {
        let (time_before, runs_before) = before.get(name).copied().unwrap_or_default();
        let (time, runs) = (time - time_before, runs - runs_before);
        if runs > 0 {
            parts.push(Part { name: format!("{name}, ns a run"), value: time as f64 / runs as f64 });
            parts.push(Part { name: format!("{name}, runs"), value: runs as f64 });
        }
    }
    parts
}
