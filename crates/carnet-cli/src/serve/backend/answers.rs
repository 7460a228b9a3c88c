//! What the daemon answers, from what is in force.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use carnet_abi::COUNT_EVENTS_LOST;
use carnet_control::{
    Action, Applied, At, Caller, FlowLine, Id, Listener, OnDead, Owner, Problem, ProblemKind, Provider, Records,
    RegisteredProvider, Role, SessionRequest, Status,
};
use carnet_policy as policy;
use jiff::Timestamp;

use crate::serve::core::Core;
use crate::serve::events::Flows;
use crate::serve::policy::{Candidate, mistake};
use crate::serve::sessions::Registration;

/// How the daemon does.
pub fn status(core: &Core, flows: &Arc<Flows>, since: Timestamp) -> Result<Status, Problem> {
    let failed = |error: carnet_engine::Error| Problem::new(ProblemKind::Failed, error.to_string());
    let (generation, in_force_since) = core.generation();
    let ground = core.ground();
    let below = ground.governed.strip_prefix(ground.hierarchy.mount()).unwrap_or(&ground.governed);
    Ok(Status {
        version: env!("CARGO_PKG_VERSION").into(),
        instance: format!("{:016x}", core.engine().id()),
        pid: std::process::id(),
        since: since.to_string(),
        adopted: core.is_adopted,
        cgroups: vec![Path::new("/").join(below).display().to_string()],
        policy: core.candidate().summary(generation, Some(in_force_since.to_string())),
        providers: core.policy().providers.len() as u32,
        sessions: core.sessions.count() as u32,
        flows: flows.counts().0 as u64,
        lost: core.engine().counters().map_err(failed)?[COUNT_EVENTS_LOST],
    })
}

/// What has become of a policy that was sent.
pub fn applied(core: &Core, candidate: &Candidate, applied: bool, sent: &str) -> Applied {
    let (generation, since) = core.generation();
    let policy = match applied {
        true => candidate.summary(generation, Some(since.to_string())),
        false => candidate.summary(generation, None),
    };
    let warnings = candidate.warnings(core.host());
    Applied { applied, policy, warnings: warnings.iter().map(|finding| mistake(finding, sent)).collect() }
}

/// All of them, by rank.
pub fn providers(core: &Core, flows: &Arc<Flows>) -> Vec<Provider> {
    let (_, counts) = flows.counts();
    // Without them, owners are shown by their ids.
    let paths = core.cgroups().unwrap_or_default();
    let provider = |provider: &policy::Provider| Provider {
        name: provider.name.clone(),
        rank: provider.rank,
        handle: provider.handle,
        listen: provider.listeners.clone(),
        records: match provider.service {
            policy::Service::Aware => Records::Aware,
            policy::Service::Unaware => Records::Unaware,
        },
        on_dead: match provider.on_dead {
            policy::OnDead::Open => OnDead::Open,
            _ => OnDead::Closed,
        },
        direct: provider.direct,
        owner: provider.owners.iter().map(|owner| owner_of(owner, core, &paths)).collect(),
        filters: provider.filters.len() as u32,
        state: core.health().state(&provider.name),
        session: core.sessions.of(&provider.name).map(|(session, _)| session),
        flows: counts.get(&provider.name).copied().unwrap_or_default(),
    };
    let mut providers: Vec<_> = core.policy().providers.iter().map(provider).collect();
    providers.sort_by_key(|provider| provider.rank);
    providers
}

fn owner_of(owner: &policy::Owner, core: &Core, paths: &std::collections::BTreeMap<u64, std::path::PathBuf>) -> Owner {
    match *owner {
        policy::Owner::Uid(uid) => Owner::Uid(Id::Number(uid)),
        policy::Owner::Cgroup { id, .. } => {
            let mount = core.ground().hierarchy.mount();
            let below = paths.get(&id).and_then(|path| path.strip_prefix(mount).ok());
            Owner::Cgroup(
                below.map_or_else(|| format!("(gone: {id})"), |path| Path::new("/").join(path).display().to_string()),
            )
        }
        _ => Owner::Cgroup("(unknown)".into()),
    }
}

/// Handles and ranks of the providers of a registration in force, and how many filters it has.
pub fn registered(core: &Core, registration: &Registration) -> (Vec<RegisteredProvider>, u32) {
    let mut filters = registration.host_filters();
    let mut registered = Vec::new();
    for name in registration.providers() {
        let Some(own) = core.policy().providers.iter().find(|provider| provider.name == *name) else { continue };
        filters += own.filters.len() as u32;
        registered.push(RegisteredProvider { name: name.clone(), handle: own.handle, rank: own.rank });
    }
    (registered, filters)
}

/// Who a policy or a registration is from, for people.
pub fn sender(caller: &Caller) -> String {
    match caller.pid {
        Some(pid) => format!("uid {}, process {pid}", caller.uid),
        None => format!("uid {}", caller.uid),
    }
}

/// A provider's listeners are kept for, and given back to, those who are the provider.
pub fn check_speaker(core: &Core, caller: &Caller, provider: &str) -> Result<(), Problem> {
    let Some(own) = core.policy().providers.iter().find(|own| own.name == provider) else {
        return Err(Problem::new(ProblemKind::NotFound, format!("there is no provider {provider:?}")));
    };
    let paths = core.cgroups().map_err(|error| Problem::new(ProblemKind::Failed, crate::one_line(&error)))?;
    let mount = core.ground().hierarchy.mount();
    let is_own = |owner: &policy::Owner| match owner {
        policy::Owner::Uid(uid) => *uid == caller.uid,
        policy::Owner::Cgroup { id, .. } => {
            let own = paths.get(id).and_then(|path| path.strip_prefix(mount).ok());
            let cgroup = caller.cgroup.as_ref().and_then(|cgroup| cgroup.strip_prefix("/").ok());
            own.zip(cgroup).is_some_and(|(own, cgroup)| cgroup.starts_with(own))
        }
        _ => false,
    };
    let has_registered = core.sessions.of(provider).is_some_and(|(_, session)| session.saved.uid == caller.uid);
    match caller.role >= Some(Role::Administrator) || has_registered || own.owners.iter().any(is_own) {
        true => Ok(()),
        false => {
            let what = format!("the caller (uid {}) is no owner of {provider:?}", caller.uid);
            Err(Problem::new(ProblemKind::Forbidden, what))
        }
    }
}

/// Only what the provider listens with is kept for it.
pub fn check_addresses(core: &Core, provider: &str, listeners: &[Listener]) -> Result<(), Problem> {
    let own = core.policy().providers.iter().find(|own| own.name == provider);
    let addresses = own.map_or(&[][..], |own| &own.listeners);
    let at: HashSet<u64> = core.listening().at(addresses).map(|listener| listener.inode.into()).collect();
    // What has begun to listen since the last look is known by its address.
    let is_there = |listener: &Listener| {
        at.contains(&listener.inode()) || listener.dialable().iter().any(|address| addresses.contains(address))
    };
    match listeners.iter().find(|listener| !is_there(listener)) {
        None => Ok(()),
        Some(other) => {
            let what = format!("{other} is no address of {provider:?}, which listens on {addresses:?}");
            Err(Problem::new(ProblemKind::Conflict, what))
        }
    }
}

/// Whether one of these services has had the flow, or has refused it. Other lines are about all.
pub fn is_of(line: &FlowLine, names: &HashSet<String>) -> bool {
    match line {
        FlowLine::Flow(flow) => {
            flow.chain.iter().any(|link| names.contains(&link.service))
                || matches!(&flow.at, Some(At::Service { service }) if names.contains(service))
        }
        _ => false,
    }
}

/// Whether a line is about one application's doing.
pub fn has_origin(line: &FlowLine) -> bool {
    matches!(line, FlowLine::Flow(_) | FlowLine::Socket(_))
}

/// The cgroups whose connections a session's providers are to have.
pub fn cgroups_of(request: &SessionRequest) -> Vec<String> {
    let filters = request.providers.iter().flat_map(|provider| &provider.filters);
    let redirecting = filters.filter(|filter| filter.action == Action::Redirect);
    redirecting.flat_map(|filter| filter.matches.cgroup.iter().cloned()).collect()
}
