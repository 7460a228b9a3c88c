//! A run on a host that `carnet serve` governs: a session of that daemon's instead of an engine of its own.
//!
//! ```text
//! Served::find ──► where the run's cgroups are ──► services ──► register: one session ──► told.rs: its lines ► flow log
//!                                                                                         └► Ending: the session is lost
//! ```

mod told;

use std::collections::HashSet;
use std::fmt::Display;
use std::io::{PipeReader, PipeWriter, Read, pipe};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use carnet_control::{
    Action, ClientError, FilterRegistration, Match, OnDead, OneOrMore, Owner, ProblemKind, ProviderRegistration, Reach,
    Records, Session, SessionRequest, Status,
};
use carnet_engine::cgroup::{Cgroup, Hierarchy};
use carnet_policy::Service;

use self::told::Told;
use crate::control::{Asking, Unanswered};
use crate::run::log::{FlowLog, Lines};
use crate::run::place;
use crate::run::plan::{Ready, Terms};
use crate::run::reports::Reports;

/// A daemon that governs the caller's cgroup.
pub struct Served {
    asking: Asking,
    status: Status,
    /// The cgroup that it governs, as a directory.
    governed: PathBuf,
    /// Where the run's cgroup is to be.
    pub above: PathBuf,
}

/// Readable once the run must not go on: what its connections go through is not there any more.
pub struct Ending(PipeReader);

impl Served {
    /// The daemon that listens at `socket`, or at the default one. `None`: an engine of the run's own is to be used.
    pub fn find(socket: Option<&Path>, terms: &Terms, hierarchy: &Hierarchy) -> Result<Option<Self>> {
        let asking = Asking::at(socket.unwrap_or(Path::new(carnet_control::DEFAULT_SOCKET)).into())?;
        let status = match asking.ask(async |client| client.status().await) {
            Ok(status) => status,
            Err(Unanswered::Client(ClientError::NoDaemon { .. })) if socket.is_none() => return Ok(None),
            Err(unanswered) => return Err(may_not("may govern this cgroup", unanswered)),
        };
        for cgroup in &status.cgroups {
            let governed: PathBuf = hierarchy.mount().join(cgroup.trim_start_matches('/')).components().collect();
            let Some(above) = place::above_governed(hierarchy, &governed)? else { continue };
            let served = Self { asking, status, governed, above };
            served.check(terms)?;
            return Ok(Some(served));
        }
        Ok(None)
    }

    /// Some things hold for all that is governed, or not at all.
    fn check(&self, terms: &Terms) -> Result<()> {
        if !terms.block_quic && !terms.strict {
            return Ok(());
        }
        let policy = self.asking.ask(async |client| client.policy().await).map_err(Unanswered::into_error)?;
        let policy: toml::Table = policy.parse().context("the daemon's policy cannot be read")?;
        for (wanted, option, key) in
            [(terms.block_quic, "--block-quic", "block-quic"), (terms.strict, "--strict", "strict")]
        {
            if wanted && policy.get(key).and_then(toml::Value::as_bool) != Some(true) {
                bail!(
                    "{option} cannot be had for this run alone: carnet serve (process {}) governs this cgroup. Write \
                     `{key} = true` into its policy ({}), or use an engine of the run's own: --own-engine",
                    self.status.pid,
                    self.status.policy.source
                );
            }
        }
        Ok(())
    }

    /// Registers the services, in their order and behind all others, for what is in `app`. Starts the log of what the
    /// session tells.
    pub fn register(
        self,
        services: &[Ready],
        terms: &Terms,
        app: &Cgroup,
        hierarchy: &Hierarchy,
        reports: Vec<Reports>,
        lines: Lines,
    ) -> Result<(FlowLog, Ending)> {
        let request = request(services, terms, &below(app.path(), hierarchy)?, hierarchy)?;
        let session = self
            .asking
            .ask(async |client| client.session(&request, &[]).await)
            .map_err(|unanswered| may_not("governs this cgroup", unanswered))?;
        self.check_seen(&request)?;
        let (reader, writer) = pipe().context("cannot make a pipe")?;
        let hierarchy = hierarchy.clone();
        let open = terms.open;
        let log = FlowLog::by(move |requested| {
            Told::new(self, hierarchy, request, session, open, reports, lines, requested, writer).write()
        })?;
        Ok((log, Ending(reader)))
    }

    /// A daemon in another container may know other cgroups by these names, or none.
    fn check_seen(&self, request: &SessionRequest) -> Result<()> {
        let providers = self.asking.ask(async |client| client.providers().await).map_err(Unanswered::into_error)?;
        for registered in &request.providers {
            let seen = providers.iter().find(|provider| provider.name == registered.name);
            if seen.is_none_or(|seen| seen.owner[..] != registered.owner[..]) {
                bail!(
                    "the daemon at process {} does not see this run's cgroups: it may be in another container. An engine of \
                     the run's own does without it: --own-engine",
                    self.status.pid
                );
            }
        }
        Ok(())
    }

    /// Whether no engine's programs are at the governed cgroup any more, so that connections go past all services.
    /// What cannot be told is taken for no.
    fn is_gone(&self, hierarchy: &Hierarchy) -> bool {
        let Ok(governed) = Cgroup::open(hierarchy, &self.governed) else { return false };
        let Ok(attached) = carnet_engine::probe::attached(hierarchy, &self.governed) else { return false };
        let is_engine = |name: &str| name == CONNECT;
        !attached.iter().any(|at| at.cgroup_id == governed.id() && at.programs.iter().any(|one| is_engine(&one.name)))
    }
}

impl Ending {
    /// The message.
    pub fn why(&self) -> String {
        let mut why = String::new();
        match (&self.0).read_to_string(&mut why) {
            Ok(_) if !why.is_empty() => why,
            _ => "the thread of the flow log has ended, so the command was ended".into(),
        }
    }
}

impl AsFd for Ending {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// The session of a run.
fn request(services: &[Ready], terms: &Terms, app: &str, hierarchy: &Hierarchy) -> Result<SessionRequest> {
    let mut providers = Vec::new();
    for service in services {
        providers.push(ProviderRegistration {
            name: registered_name(&service.name),
            rank: None,
            listen: OneOrMore::from(service.listeners.clone()),
            listeners: Vec::new(),
            records: match service.service {
                Service::Aware => Records::Aware,
                Service::Unaware => Records::Unaware,
            },
            on_dead: if terms.open { OnDead::Open } else { OnDead::Closed },
            direct: false,
            reach: if terms.any_destination { Reach::Anywhere } else { Reach::Routes },
            sockname: Default::default(),
            in_flight_limit: terms.loop_limit,
            owner: OneOrMore::from(vec![Owner::Cgroup(below(&service.cgroup, hierarchy)?)]),
            filters: filters(terms, app),
        });
    }
    Ok(SessionRequest { providers, filters: Vec::new(), flows: true })
}

/// Two runs may have services of one name.
fn registered_name(name: &str) -> String {
    format!("{name}@{}", std::process::id())
}

fn filters(terms: &Terms, app: &str) -> Vec<FilterRegistration> {
    let filter = |name: &str, weight, remote: &[&str], action| FilterRegistration {
        name: name.into(),
        weight,
        matches: Match {
            cgroup: OneOrMore::from(vec![app.into()]),
            remote: OneOrMore::from(remote.iter().map(ToString::to_string).collect::<Vec<_>>()),
            ..Match::default()
        },
        action,
        context: None,
        context_base64: None,
    };
    let mut filters = vec![filter("all", 100, &[], Action::Redirect)];
    if terms.no_loopback {
        filters.push(filter("not loopback", 200, &["127.0.0.0/8", "::1"], Action::Skip));
    }
    filters
}

/// As the daemon calls it: a path from the root of the hierarchy on.
fn below(cgroup: &Path, hierarchy: &Hierarchy) -> Result<String> {
    let path = cgroup.strip_prefix(hierarchy.mount()).unwrap_or(cgroup);
    let path = path.to_str().with_context(|| format!("{} is no UTF-8", cgroup.display()))?;
    Ok(format!("/{path}"))
}

/// A daemon is there, and the run cannot be its session.
fn may_not(what: &str, unanswered: Unanswered) -> anyhow::Error {
    let is_forbidden = match &unanswered {
        Unanswered::Client(ClientError::Denied { .. }) => true,
        Unanswered::Client(ClientError::Refused(problem)) => problem.kind == ProblemKind::Forbidden,
        _ => false,
    };
    let why = match unanswered {
        Unanswered::Client(ClientError::Refused(problem)) => problem.to_string(),
        other => crate::one_line(&other.into_error()),
    };
    if !is_forbidden {
        return anyhow!("{why}");
    }
    anyhow!(
        "a daemon {what}, and this run may not register its services there: {why}. An engine of the run's own beside it \
         would have the connections pass the host's services by; --own-engine does that"
    )
}

/// What the run ends with.
fn tell_ending(writer: PipeWriter, path: &Path, why: impl Display) {
    use std::io::Write;
    let message = format!(
        "the session with the daemon at {} is over, so the command was ended; with --open it would go on without services: \
         {why}",
        path.display()
    );
    // Where nobody reads it the run is over.
    let _ = (&writer).write_all(message.as_bytes());
}

/// Names of a session's providers.
fn names(request: &SessionRequest) -> HashSet<String> {
    request.providers.iter().map(|provider| provider.name.clone()).collect()
}

/// What a session is registered with, again and again.
async fn register(client: carnet_control::Client, request: &SessionRequest) -> Result<(Session, Status), ClientError> {
    let session = client.session(request, &[]).await?;
    let status = client.status().await?;
    Ok((session, status))
}

/// The engine's program that redirects, as the kernel calls it.
const CONNECT: &str = "carnet_connect4";
