//! What products register over the control socket, for as long as their connections last.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use carnet_control::{
    Caller, Event, FilterRegistration, Listener, OneOrMore, Owner, Problem, ProblemKind, ProviderRegistration, Role,
    SessionEnd, SessionId, SessionNews, SessionRequest,
};
use tokio::sync::broadcast;

use super::held::Held;
use super::state::SavedSession;

/// All that there are.
#[derive(Debug, Default)]
pub struct Sessions {
    all: BTreeMap<SessionId, Session>,
    newest: u64,
}

/// One.
#[derive(Debug)]
pub struct Session {
    /// What the next daemon has to know.
    pub saved: SavedSession,
    /// What the product is told.
    pub news: broadcast::Sender<SessionNews>,
    /// It was registered with the daemon before this one, or its listeners are held. Where its product has not come back
    /// by then, it is over.
    orphan_until: Option<Instant>,
}

/// A registration that has been looked at.
#[derive(Debug)]
pub struct Registration {
    saved: SavedSession,
    host_filters: u32,
    /// The passed listeners of each provider, by its name.
    pub listeners: Vec<(String, Vec<Listener>)>,
}

impl Sessions {
    /// Those of the daemon before, whose products have some time to come back.
    pub fn left(saved: Vec<SavedSession>) -> Self {
        let mut sessions = Self::default();
        for saved in saved {
            sessions.add(saved, Some(Instant::now() + TIME_TO_COME_BACK));
        }
        sessions
    }

    /// By name, what they add to the policy.
    pub fn texts(&self) -> Vec<(String, String)> {
        self.all.iter().map(|(id, session)| (name(*id), session.saved.text.clone())).collect()
    }

    /// The same with another one, in the place of those whose providers have come back with it.
    pub fn texts_with(&self, registration: &Registration) -> Vec<(String, String)> {
        let replaced = self.replaced_by(registration);
        let others = self.all.iter().filter(|(id, _)| !replaced.contains(id));
        let mut texts: Vec<_> = others.map(|(id, session)| (name(*id), session.saved.text.clone())).collect();
        texts.push((self.next_name(), registration.saved.text.clone()));
        texts
    }

    /// What findings call the next one's text.
    pub fn next_name(&self) -> String {
        name(SessionId(self.newest + 1))
    }

    /// Takes it among them. It has been put in force.
    pub fn begin(&mut self, registration: &Registration) -> (SessionId, broadcast::Receiver<SessionNews>) {
        for id in self.replaced_by(registration) {
            self.all.remove(&id);
        }
        self.add(registration.saved.clone(), None)
    }

    fn add(
        &mut self,
        saved: SavedSession,
        orphan_until: Option<Instant>,
    ) -> (SessionId, broadcast::Receiver<SessionNews>) {
        self.newest += 1;
        let id = SessionId(self.newest);
        let (news, told) = broadcast::channel(MOST_NEWS);
        self.all.insert(id, Session { saved, news, orphan_until });
        (id, told)
    }

    /// Those whose products come back with this registration.
    fn replaced_by(&self, registration: &Registration) -> Vec<SessionId> {
        let is_back = |session: &Session| {
            session.orphan_until.is_some()
                && session.saved.uid == registration.saved.uid
                && !session.saved.providers.is_empty()
                && session.saved.providers.iter().all(|name| registration.saved.providers.contains(name))
        };
        self.all.iter().filter(|(_, session)| is_back(session)).map(|(id, _)| *id).collect()
    }

    /// Takes one away. `None`: there is none, or it stays for now.
    pub fn end(&mut self, id: SessionId, end: SessionEnd, held: &Held) -> Option<Session> {
        let session = self.all.get_mut(&id)?;
        match (end, held.until(&session.saved.providers)) {
            // The next daemon has it on, and its product some time to come back.
            (SessionEnd::DaemonEnding, _) => None,
            // It restarts, as it has said.
            (SessionEnd::ClientGone, Some(until)) => {
                session.orphan_until = Some(until);
                None
            }
            _ => self.all.remove(&id),
        }
    }

    /// Takes the one away that goes by this name in findings. Returns names of its providers.
    pub fn forget(&mut self, of: &str) -> Vec<String> {
        let gone = self.all.extract_if(.., |id, _| name(*id) == of);
        gone.flat_map(|(_, session)| session.saved.providers).collect()
    }

    /// Takes those away whose products have not come back in time.
    pub fn forget_orphans(&mut self) -> Vec<(SessionId, SavedSession)> {
        let now = Instant::now();
        let is_over = |session: &Session| session.orphan_until.is_some_and(|end| end < now);
        self.all.extract_if(.., |_, session| is_over(session)).map(|(id, session)| (id, session.saved)).collect()
    }

    /// For the next daemon, with one that is about to begin.
    pub fn saved(&self, registration: Option<&Registration>) -> Vec<SavedSession> {
        let replaced = registration.map_or_else(Vec::new, |registration| self.replaced_by(registration));
        let others = self.all.iter().filter(|(id, _)| !replaced.contains(id)).map(|(_, session)| &session.saved);
        others.chain(registration.map(|registration| &registration.saved)).cloned().collect()
    }

    /// Those whose products are there.
    pub fn count(&self) -> usize {
        self.all.values().filter(|session| session.orphan_until.is_none()).count()
    }

    /// Inodes of all listeners that were passed.
    pub fn marked(&self) -> BTreeSet<u32> {
        self.all.values().flat_map(|session| session.saved.marked.iter().copied()).collect()
    }

    /// The session that a provider is of.
    pub fn of(&self, provider: &str) -> Option<(SessionId, &Session)> {
        let has = |session: &Session| session.saved.providers.iter().any(|own| own == provider);
        self.all.iter().find(|(_, session)| has(session)).map(|(id, session)| (*id, session))
    }

    /// Whether this user's product that has it may come back.
    pub fn is_awaited(&self, provider: &str, uid: u32) -> bool {
        self.of(provider).is_some_and(|(_, session)| session.orphan_until.is_some() && session.saved.uid == uid)
    }

    /// Tells the session that it is about.
    pub fn tell(&self, event: &Arc<Event>) {
        let session = event.provider.as_deref().and_then(|provider| self.of(provider));
        if let Some((_, session)) = session {
            // Nobody may listen.
            let _ = session.news.send(SessionNews::Event(Arc::clone(event)));
        }
    }
}

impl Registration {
    /// What is asked for, in the words of the policy file. `rank` is one that nobody has and nobody is behind.
    pub fn new(
        caller: &Caller,
        mut request: SessionRequest,
        listeners: Vec<Vec<Listener>>,
        mut rank: u16,
    ) -> Result<Self, Problem> {
        if !request.filters.is_empty() && caller.role < Some(Role::Administrator) {
            return Err(Problem::forbidden(caller, Role::Administrator));
        }
        let mut table = toml::Table::new();
        let mut names = Vec::new();
        let mut passed = Vec::new();
        let mut providers = Vec::new();
        for (mut provider, listeners) in request.providers.into_iter().zip(listeners) {
            if provider.owner.is_empty() {
                provider.owner = OneOrMore::from(vec![own(caller)?]);
            }
            check_owners(caller, &provider)?;
            name_each(&mut provider.filters);
            provider.rank.get_or_insert_with(|| {
                let next = rank;
                rank = rank.saturating_add(RANKS_APART);
                next
            });
            names.push(provider.name.clone());
            providers.push(in_words_of_the_file(&provider, &listeners)?);
            passed.push((provider.name, listeners));
        }
        table.insert("provider".into(), providers.into());
        name_each(&mut request.filters);
        table.insert("filter".into(), value(&request.filters)?);
        let text = toml::to_string(&table).map_err(strange)?;
        let host_filters = request.filters.len() as u32;
        let marked = passed.iter().flat_map(|(_, listeners)| listeners).map(inode).collect();
        let saved = SavedSession { text, providers: names, uid: caller.uid, marked };
        Ok(Self { saved, host_filters, listeners: passed })
    }

    /// Inodes of the listeners that were passed.
    pub fn marked(&self) -> &BTreeSet<u32> {
        &self.saved.marked
    }

    /// How many filters of the host it has.
    pub fn host_filters(&self) -> u32 {
        self.host_filters
    }

    /// Its providers' names.
    pub fn providers(&self) -> &[String] {
        &self.saved.providers
    }
}

/// Whose a provider is of which nothing else is said: of everything in the caller's cgroup, or of its user.
fn own(caller: &Caller) -> Result<Owner, Problem> {
    match &caller.cgroup {
        Some(cgroup) if cgroup != Path::new("/") => Ok(Owner::Cgroup(cgroup.display().to_string())),
        _ if caller.uid != 0 => Ok(Owner::Uid(carnet_control::Id::Number(caller.uid))),
        _ => {
            let what = "say whose the provider is: `owner`. It cannot be told by the caller, who is root and in no \
                        cgroup of its own";
            Err(Problem::new(ProblemKind::Malformed, what))
        }
    }
}

/// What a provider owns is not redirected to it, nor to those before it. So nobody registers another's.
fn check_owners(caller: &Caller, provider: &ProviderRegistration) -> Result<(), Problem> {
    if caller.role >= Some(Role::Administrator) {
        return Ok(());
    }
    for owner in provider.owner.iter() {
        let is_own = match owner {
            Owner::Uid(carnet_control::Id::Number(uid)) => *uid == caller.uid,
            Owner::Uid(carnet_control::Id::Name(_)) => false,
            Owner::Cgroup(path) => caller.cgroup.as_ref().is_some_and(|own| {
                own != Path::new("/") && !path.split('/').any(|step| step == "..") && Path::new(path).starts_with(own)
            }),
        };
        if !is_own {
            let what = format!(
                "provider {:?}: an owner is the caller's uid (a number), or the caller's cgroup or one in it, except \
                 for administrators",
                provider.name
            );
            return Err(Problem::new(ProblemKind::Forbidden, what));
        }
    }
    Ok(())
}

/// The policy file wants names; here they may be left out.
fn name_each(filters: &mut [FilterRegistration]) {
    for (number, filter) in (1..).zip(filters) {
        if filter.name.is_empty() {
            filter.name = format!("filter {number}");
        }
    }
}

/// As a `[[provider]]` table.
fn in_words_of_the_file(provider: &ProviderRegistration, listeners: &[Listener]) -> Result<toml::Value, Problem> {
    let toml::Value::Table(mut table) = value(provider)? else { return Err(strange("it is no table")) };
    table.remove("listeners");
    if let Some(filters) = table.remove("filters") {
        table.insert("filter".into(), filters);
    }
    let mut addresses: Vec<SocketAddr> = provider.listen.iter().copied().collect();
    for listener in listeners {
        let dialable = listener.dialable();
        if dialable.is_empty() {
            let what = format!("{listener} cannot be dialled: pass a listener on a loopback address, or on a wildcard");
            return Err(Problem::new(ProblemKind::Malformed, what));
        }
        addresses.extend(dialable);
    }
    let addresses: Vec<_> = addresses.iter().map(ToString::to_string).collect();
    table.insert("listen".into(), addresses.into());
    Ok(table.into())
}

/// As the kernel's diagnosis tells it: 32 bits.
fn inode(listener: &Listener) -> u32 {
    listener.inode() as u32
}

fn value(of: &impl serde::Serialize) -> Result<toml::Value, Problem> {
    toml::Value::try_from(of).map_err(strange)
}

fn strange(error: impl std::fmt::Display) -> Problem {
    Problem::new(ProblemKind::Malformed, format!("this cannot be written as a policy: {error}"))
}

/// What findings call its text.
fn name(id: SessionId) -> String {
    format!("session {id}")
}

/// Products of an ended daemon have so long to find the next one.
pub const TIME_TO_COME_BACK: Duration = Duration::from_secs(10);
const MOST_NEWS: usize = 256;
/// Between providers without ranks of their own.
const RANKS_APART: u16 = 10;

#[cfg(test)]
mod tests;
