//! One run, from the first cgroup to the last line.

use std::mem;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use carnet_abi::COUNT_EVENTS_LOST;
use carnet_engine::cgroup::{Cgroup, Hierarchy};
use carnet_engine::{Engine, Options, RouteWatch};
use carnet_policy::Service as Records;

use crate::run::command::{RunningCommand, Watch};
use crate::run::flows::Known;
use crate::run::guardian::Guardian;
use crate::run::identity::Identity;
use crate::run::log::{FlowLog, Lines};
use crate::run::place::{self, Name, Place, sweep};
use crate::run::plan::{Ready, Terms, policy};
use crate::run::served::{Ending, Served};
use crate::run::service::Service;
use crate::run::setup::{Services, Setup};
use crate::run::wait::Signals;
use crate::run::{Arguments, complain, outside};

/// Does all of it but the clearing up, which is the guardian's. The result is the exit code.
pub fn run(arguments: &Arguments, signals: &Signals, guardian: &mut Guardian, lines: Lines) -> Result<u8> {
    let hierarchy = Hierarchy::find()?;
    let terms = Terms {
        open: arguments.open,
        no_loopback: arguments.no_loopback,
        loop_limit: arguments.loop_limit,
        block_quic: arguments.block_quic,
        strict: arguments.strict,
        any_destination: arguments.any_destination,
    };
    let served = match arguments.own_engine {
        true => None,
        false => Served::find(arguments.socket.as_deref(), &terms, &hierarchy)?,
    };
    let identity = Identity::of_caller()?;
    let name = Name::own()?;
    let above = match &served {
        Some(served) => served.above.clone(),
        None => place::above(&hierarchy)?,
    };
    for left in sweep(&above, &name) {
        complain(&crate::one_line(&left));
    }
    guardian.entrust(&above.join(name.to_string()))?;
    let place = Place::create(&hierarchy, &above, &name)?;
    // What the kernel refuses is found before a service is started in vain.
    let engine = match served {
        Some(_) => None,
        None => Some(Engine::load(&place.root, &Options::default())?),
    };

    let setup =
        Setup { arguments, signals, guardian, hierarchy: &hierarchy, services: &place.services, identity: &identity };
    let mut services = setup.services()?;
    let (log, force) = match (engine, served) {
        (Some(engine), _) => Force::of_engine(engine, &mut services, &terms, &place, guardian, lines)?,
        (None, Some(served)) => {
            let reports = services.started.iter_mut().filter_map(Service::take_reports).collect();
            let (log, ending) = served.register(&services.ready, &terms, &place.app, &hierarchy, reports, lines)?;
            (log, Force::Session(ending))
        }
        (None, None) => bail!("there is nothing that redirects"),
    };
    for warning in mem::take(&mut services.warnings) {
        log.warn(warning);
    }
    // What the terminal sends from here on reaches the command by itself; before, nobody but carnet.
    let start = |()| RunningCommand::start(&arguments.command, &place.app, &identity, arguments.strict);
    let outcome = signals.none_is_fatal().and_then(start).and_then(|command| {
        let (open, services, cgroup, log) = (arguments.open, services.started, &place.app, &log);
        Watch { open, signals, guardian, services, command, cgroup, log, ending: force.ending() }.until_the_end()
    });

    // What the command has left behind ends here, so that its connections end before their lines are written.
    let emptied = empty(&place.app);
    let (mut lines, mut summary) = log.finish()?;
    if let Force::Own { engine, .. } = &force {
        summary.events_lost = engine.counters()?[COUNT_EVENTS_LOST];
    }
    lines.summary(&summary);
    if let Some(error) = lines.into_error() {
        complain(&format!("the flow log is not complete: {error}"));
    }
    let code = outcome?;
    emptied?;
    Ok(code)
}

/// What redirects the command's connections.
enum Force {
    /// An engine of the run's own.
    Own { engine: Box<Engine>, _routes: Option<RouteWatch> },
    /// A daemon's, as long as the flow log's thread has the session.
    Session(Ending),
}

impl Force {
    fn of_engine(
        mut engine: Engine,
        services: &mut Services,
        terms: &Terms,
        place: &Place,
        guardian: &Guardian,
        lines: Lines,
    ) -> Result<(FlowLog, Self)> {
        engine.apply(&policy(&services.ready, terms).compile(1)?)?;
        // In force before the command runs. Without them every destination counts as reachable.
        let routes = match engine.routes().and_then(|routes| routes.watch(|notice| complain(&notice.to_string()))) {
            Ok(watch) => Some(watch),
            Err(error) => {
                complain(&format!("{error}. Connections without a route go to services too, and fail there"));
                None
            }
        };
        engine.attach_services(&place.services)?;
        for cgroup in outside::outermost(mem::take(&mut services.outside)) {
            engine.attach_outside_service(&cgroup)?;
        }
        engine.attach_governed(&place.root)?;
        guardian.hold(&engine.link_fds())?;

        let reports = services.started.iter_mut().filter_map(Service::take_reports).collect();
        let known = |ready: &Ready| Known { name: ready.name.clone(), unaware: ready.service == Records::Unaware };
        let known = (1..).zip(services.ready.iter().map(known)).collect();
        let log = FlowLog::start(engine.events()?, reports, known, lines)?;
        if !engine.knows_other_engines() {
            log.warn(OTHERS_HIDDEN.into());
        }
        Ok((log, Self::Own { engine: engine.into(), _routes: routes }))
    }

    fn ending(&self) -> Option<&Ending> {
        match self {
            Self::Own { .. } => None,
            Self::Session(ending) => Some(ending),
        }
    }
}

/// Kills what is in the cgroup, and waits until it has gone.
fn empty(cgroup: &Cgroup) -> Result<()> {
    let end = Instant::now() + KILL_DEADLINE;
    cgroup.kill()?;
    while cgroup.is_populated()? {
        if Instant::now() > end {
            bail!(
                "processes in {} do not die; they may be waiting for a disk or a network file system",
                cgroup.path().display()
            );
        }
        thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

const OTHERS_HIDDEN: &str = "this process may not look for other engines of Carnet's on this host. Where one governs the \
     same connections, as where a run is started in a run, both break them. Give it CAP_SYS_ADMIN";

const KILL_DEADLINE: Duration = Duration::from_secs(10);
