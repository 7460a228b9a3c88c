//! `carnet serve`: governs a cgroup, or the whole host, by a policy file, until `carnet down`.
//!
//! What governs is in the kernel and pinned; this process only tends it. It may die at any moment: connections go on as
//! the policy says, and the next one that starts takes over what it finds.
//!
//! ```text
//! policy file ──► policy.rs: text ► Policy ► image ──┐
//!                 (again when what it names changes)  ├──► core.rs ──► engine (pinned) ──► events.rs ──► flows
//! control API ──► backend.rs ► sessions.rs, held.rs ─┘       └► health.rs, places.rs, programs.rs: once a second
//! ```

mod backend;
mod core;
mod events;
mod health;
mod held;
mod namespaces;
mod news;
mod places;
mod policy;
mod programs;
mod sessions;
mod state;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use carnet_control::{BindError, ControlSocket, Server};
use carnet_engine::cgroup::Hierarchy;
use clap::Args;
use sd_notify::NotifyState;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, MissedTickBehavior, sleep};

use self::backend::Daemon;
use self::core::{Core, Ground};
use self::news::News;
use self::state::StateFile;
use crate::run::complain;

/// Govern a cgroup, or the whole host, by a policy
///
/// Connections of the processes in the cgroup, and of all below it, go through the services that the policy names. The
/// programs stay in the kernel when this process ends, however it ends; `carnet down` removes them. Starting it again
/// takes them over.
///
/// What the policy file names (users, programs, cgroups) is looked up again once a second. SIGHUP, like `carnet reload`,
/// reads the file again.
#[derive(Args, Debug)]
pub struct Arguments {
    /// The policy file
    #[arg(long, value_name = "FILE", default_value = "/etc/carnet/policy.toml")]
    policy: PathBuf,

    /// The cgroup to govern, as a path below the cgroup2 mount
    #[arg(long, value_name = "PATH", required_unless_present = "whole_host", conflicts_with = "whole_host")]
    cgroup: Option<PathBuf>,

    /// Govern every process of the host
    #[arg(long)]
    whole_host: bool,

    /// Where `carnet status` and others reach it
    #[arg(long, value_name = "SOCKET", default_value = carnet_control::DEFAULT_SOCKET)]
    socket: PathBuf,

    /// Where the programs are pinned, a folder to be made in a bpf file system [default: carnet in the first one mounted]
    #[arg(long, value_name = "FOLDER")]
    pins: Option<PathBuf>,

    /// Where what has to be known again after a restart is kept
    #[arg(long, value_name = "FOLDER", default_value = "/run/carnet")]
    state: PathBuf,
}

/// Runs until it is told to end.
pub fn serve(arguments: Arguments) -> Result<ExitCode> {
    let hierarchy = Hierarchy::find()?;
    let governed = match &arguments.cgroup {
        // Components: a slash at the end would be part of the name otherwise.
        Some(path) => hierarchy.mount().join(path.strip_prefix("/").unwrap_or(path)).components().collect(),
        None => hierarchy.mount().to_owned(),
    };
    let pins = match &arguments.pins {
        Some(folder) => folder.clone(),
        None => carnet_engine::pin::default_folder()?,
    };
    let ground = Ground { hierarchy, governed, pins, state: arguments.state, file: arguments.policy };
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.worker_threads(2).enable_all().build().context("cannot start threads")?;
    let outcome = runtime.block_on(async {
        StateFile::in_folder(&ground.state)?;
        // Before anything is put to work: where this fails, nothing is left behind. Who asks now waits.
        let socket = bind(&arguments.socket).await?;
        let news = Arc::new(News::new());
        let (told, handle) = (Arc::clone(&news), runtime.handle().clone());
        let core = handle.spawn_blocking(move || Core::start(ground, told)).await.context("the daemon has a bug")??;
        let access = core.access();
        let daemon = Daemon::new(core, news, runtime.handle().clone())?;
        let server = Server::new(socket, Arc::new(daemon.clone()), access.clone());
        daemon.follow_access(server.access(), access);
        complain(&format!("ready at {}", arguments.socket.display()));
        notify(&[NotifyState::Ready]);
        run(server, daemon).await
    });
    // Whatever waits for the kernel still is not waited for.
    runtime.shutdown_timeout(Duration::from_secs(5));
    outcome?;
    Ok(ExitCode::SUCCESS)
}

/// The daemon before may be about to end.
async fn bind(path: &Path) -> Result<ControlSocket> {
    let end = Instant::now() + PATIENCE;
    loop {
        match ControlSocket::bind(path) {
            Err(BindError::Served { .. }) if Instant::now() < end => sleep(Duration::from_millis(50)).await,
            bound => return Ok(bound?),
        }
    }
}

async fn run(server: Server<Daemon>, daemon: Daemon) -> Result<()> {
    let failed = "cannot wait for signals";
    let mut terminate = signal(SignalKind::terminate()).context(failed)?;
    let mut interrupt = signal(SignalKind::interrupt()).context(failed)?;
    let mut hang_up = signal(SignalKind::hangup()).context(failed)?;
    let tended = daemon.clone();
    let tending = async move {
        let mut look = tokio::time::interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = look.tick() => tended.look().await,
                _ = hang_up.recv() => tended.read_again().await,
            }
        }
    };
    let ended = async {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            () = daemon.is_down() => {}
        }
        notify(&[NotifyState::Stopping]);
    };
    tokio::select! {
        () = tending => Ok(()),
        () = server.run(ended) => Ok(()),
    }
}

/// Tells the service manager, where there is one that wants to know.
fn notify(state: &[NotifyState]) {
    if let Err(error) = sd_notify::notify(state) {
        complain(&format!("cannot tell the service manager: {error}"));
    }
}

/// How often what the policy names, and who listens, is looked up again.
const LOOK: Duration = Duration::from_secs(1);

/// A daemon that serves the socket already has this long to end.
const PATIENCE: Duration = Duration::from_secs(3);
