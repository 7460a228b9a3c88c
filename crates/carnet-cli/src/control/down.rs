//! `carnet down`: takes everything off this host, with the daemon or without.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use carnet_control::{ClientError, Removed};
use carnet_engine::ErrorKind;
use carnet_engine::pin::{self, State};
use clap::Args;

use crate::control::asking::{Asking, Unanswered, is_stopped};
use crate::control::{Question, json, print};

/// Take everything off this host: programs, policy and daemon
///
/// The daemon removes all that it has put into the kernel, and ends. Where no daemon answers, what an earlier one has left
/// in the kernel is removed without it. Connections that go through a service go on as long as the service does.
///
/// The exit code is 0 where nothing is left, 3 where something could not be removed, 2 for a wrong command line.
#[derive(Args, Debug)]
pub struct Arguments {
    /// Where programs are pinned that no daemon has [default: carnet in the first bpf file system]
    #[arg(long, value_name = "FOLDER")]
    pins: Option<PathBuf>,

    #[command(flatten)]
    question: Question,
}

/// Has it removed, and says what.
pub fn down(arguments: Arguments) -> Result<ExitCode> {
    let Arguments { pins, question } = arguments;
    let asking = Asking::of(&question.daemon)?;
    let (removed, end) = match asking.ask_for(PATIENCE, async |client| client.down().await) {
        Ok(removed) => (removed, "carnet is down"),
        Err(Unanswered::Client(ClientError::NoDaemon { path, .. })) => match without_daemon(pins, &path)? {
            Some(removed) => (removed, "carnet is down, without a daemon"),
            None => (Removed::default(), "carnet was down: no daemon, and nothing in the kernel"),
        },
        Err(Unanswered::Stopped { pid }) => bail!(stopped(pid)),
        Err(unanswered) => return unanswered.tell(),
    };
    wait_for_end(&asking);
    let text = if question.json {
        json(&removed)
    } else {
        let removed: String = removed.removed.iter().map(|what| format!("removed {what}\n")).collect();
        format!("{removed}{end}\n")
    };
    print(&text)?;
    Ok(ExitCode::SUCCESS)
}

/// What a daemon has left, removed. `None`: there was nothing.
fn without_daemon(pins: Option<PathBuf>, socket: &Path) -> Result<Option<Removed>> {
    let folder = match pins {
        Some(folder) => folder,
        None => match pin::default_folder() {
            // Nothing can be pinned then.
            Err(error) if *error.kind() == ErrorKind::NoBpffs => return Ok(None),
            folder => folder?,
        },
    };
    let there = match pin::inspect(&folder)? {
        State::Absent => return Ok(None),
        State::Whole(found) => found.to_string(),
        _ => format!("what was left half made at {}", folder.display()),
    };
    let end = Instant::now() + SETTLING;
    let removed = loop {
        match pin::remove(&folder) {
            // A daemon that is about to end, or has just begun, holds them for a moment.
            Err(error) if matches!(error.kind(), ErrorKind::Held(_)) => match holder(&error) {
                Some(pid) if is_stopped(pid) => bail!(stopped(pid)),
                _ if Instant::now() < end => thread::sleep(PAUSE),
                pid => bail!(held(pid, &folder, socket)),
            },
            removed => break removed.context("cannot remove what is in the kernel")?,
        }
    };
    Ok(removed.map(|_| Removed { removed: vec![there] }))
}

fn holder(error: &carnet_engine::Error) -> Option<i32> {
    match *error.kind() {
        ErrorKind::Held(pid) => pid.and_then(|pid| i32::try_from(pid).ok()),
        _ => None,
    }
}

fn stopped(pid: i32) -> String {
    format!(
        "the daemon, process {pid}, is stopped, and can remove nothing. `kill -CONT {pid}` has it go on; `kill -KILL {pid}` \
         ends it, and `carnet down` then removes what it leaves"
    )
}

fn held(pid: Option<i32>, folder: &Path, socket: &Path) -> String {
    let who = pid.map_or_else(|| "a process that is not to be seen from here".into(), |pid| format!("process {pid}"));
    format!(
        "{who} runs the engine that is pinned at {}, and no daemon listens at {}. Say where it listens (--socket PATH), or \
         end it first",
        folder.display(),
        socket.display()
    )
}

/// The daemon answers before it ends. Whoever starts the next one must not meet it.
fn wait_for_end(asking: &Asking) {
    let end = Instant::now() + SETTLING;
    while asking.listener().is_some() && Instant::now() < end {
        thread::sleep(PAUSE);
    }
}

/// Those on their way to a service get time to arrive, and links go one by one.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long a daemon may hold its pins without listening, or listen without having any.
const SETTLING: Duration = Duration::from_secs(3);
const PAUSE: Duration = Duration::from_millis(50);
