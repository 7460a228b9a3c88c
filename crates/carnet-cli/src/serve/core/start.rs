//! From what the daemon before has left, or from nothing, to a policy in force.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use carnet_control::EventKind;
use carnet_engine::cgroup::Cgroup;
use carnet_engine::{Engine, ErrorKind, Options, pin};
use carnet_policy::Executable;

use super::{Core, Ground, InForce};
use crate::host::ThisHost;
use crate::run::complain;
use crate::serve::health::{Health, Listening};
use crate::serve::held::Held;
use crate::serve::namespaces::Namespaces;
use crate::serve::news::News;
use crate::serve::policy::{Candidate, Files, Refused};
use crate::serve::programs::Programs;
use crate::serve::sessions::Sessions;
use crate::serve::state::{PolicyText, State, StateFile};

impl Core {
    /// Takes over what is pinned, or makes it. What is to be said goes to `news`.
    ///
    /// A new engine has its policy before it is pinned, and is pinned before it is attached anywhere: whoever is killed
    /// in between leaves nothing that redirects to nobody.
    pub fn start(ground: Ground, news: Arc<News>) -> Result<Self> {
        let namespaces = Arc::new(Namespaces::default());
        let asked = Arc::clone(&namespaces);
        let host = ThisHost::new().with_netns(move |path| asked.cookie(path));
        let state_file = StateFile::in_folder(&ground.state)?;
        let governed = Cgroup::open(&ground.hierarchy, &ground.governed)?;
        let adopted = adopt(&ground.pins)?;
        let is_adopted = adopted.is_some();
        let mut engine = match adopted {
            Some(adopted) => {
                news.tell(EventKind::Adopted, format!("took over {adopted}"));
                adopted.engine
            }
            None => Engine::load(&governed, &Options::default())?,
        };
        let left = state_file.read().unwrap_or_else(|error| {
            news.warn(format!("{error:#}. Registrations are lost"));
            None
        });
        let mut state = left.filter(|state| state.engine == engine.id()).unwrap_or_default();
        state.engine = engine.id();
        // Records and marks may name those that nobody knows any more.
        state.handles.begin_after(engine.newest_handle()?);
        let mut sessions = Sessions::left(std::mem::take(&mut state.sessions));
        let programs = Programs::left(&state.programs);
        let kept = programs.kept();
        let reading = Reading { file: &ground.file, host: &host, kept: &kept, news: &news };
        let candidate = reading.first(&mut state, &mut sessions, is_adopted)?;

        let routes = engine.routes().and_then(|routes| routes.watch(|notice| complain(&notice.to_string())));
        let routes = routes.map_err(|error| news.warn(format!("{error}. Every destination counts as reachable"))).ok();
        if is_adopted && engine.governed() != governed.id() {
            engine.attach_governed(&governed)?;
            engine.govern(&governed)?;
        }
        let in_force = InForce { generation: engine.generation()?, ..InForce::default() };
        let mut core = Self {
            engine,
            governed,
            host,
            state_file,
            state,
            candidate: candidate.clone(),
            in_force,
            is_stale: false,
            complaint: None,
            programs,
            health: Health::default(),
            listening: Listening::default(),
            sessions,
            held: Held::default(),
            news,
            key_made: Instant::now(),
            began: Instant::now(),
            lost: 0,
            unneeded: BTreeMap::new(),
            namespaces,
            _routes: routes,
            is_adopted,
            ground,
        };
        core.put_in_force(candidate, None)?;
        match core.set_to_work() {
            Ok(()) => Ok(core),
            Err(error) if is_adopted => Err(error),
            Err(error) => {
                // Nothing was at work before, and half of an engine must not be.
                let _ = core.engine.take_down();
                Err(error)
            }
        }
    }

    fn set_to_work(&mut self) -> Result<()> {
        if !self.is_adopted {
            self.engine.pin(&self.ground.pins)?;
        }
        // Services can ask before they get the first connection.
        self.listening = Listening::now(&self.in_force.policy, &self.ground.hierarchy)?;
        self.attach_services()?;
        self.engine.attach_governed(&self.governed)?;
        self.tell_warnings();
        self.look();
        Ok(())
    }
}

/// The daemon before may be about to end.
fn adopt(pins: &Path) -> Result<Option<pin::Adopted>> {
    let end = Instant::now() + PATIENCE;
    loop {
        match Engine::adopt(pins, &Options::default()) {
            Err(error) if matches!(error.kind(), ErrorKind::Held(_)) && Instant::now() < end => {
                thread::sleep(Duration::from_millis(50));
            }
            adopted => return Ok(adopted?),
        }
    }
}

/// What the first policy is read with.
struct Reading<'a> {
    file: &'a Path,
    host: &'a ThisHost,
    kept: &'a [(String, Executable)],
    news: &'a News,
}

impl Reading<'_> {
    /// The policy to begin with: the file's, or the one that was put in its place since.
    fn first(&self, state: &mut State, sessions: &mut Sessions, is_adopted: bool) -> Result<Candidate> {
        let in_force = (is_adopted && !state.policy.text.is_empty()).then(|| state.policy.clone());
        let given = read_file(self.file);
        if let (Some(in_force), Ok(given)) = (&in_force, &given)
            && given.text == state.file
            && given.source != in_force.source
            && let Ok(candidate) = self.read(in_force.clone(), sessions)
        {
            self.news.tell(EventKind::Policy, format!("the policy from {} stays in force", in_force.source));
            return Ok(candidate);
        }
        let candidate = given.and_then(|given| self.read(given, sessions));
        match (candidate, in_force) {
            (Ok(candidate), _) => {
                state.file.clone_from(&candidate.given.text);
                Ok(candidate)
            }
            // Connections are governed as before; whoever mends the file has it read again.
            (Err(error), Some(in_force)) => {
                self.news.warn(format!("{error:#}\nThe policy that was in force stays"));
                self.read(in_force, sessions)
            }
            (Err(error), None) => Err(error),
        }
    }

    /// What products have registered may not go together with it any more: such a one is left out then.
    fn read(&self, given: PolicyText, sessions: &mut Sessions) -> Result<Candidate> {
        let with = |added: &[(String, String)]| {
            Candidate::read(given.clone(), Files::Beside(self.file), added, self.host, self.kept.to_vec())
        };
        let all = sessions.texts();
        let error = match with(&all) {
            Ok(candidate) => return Ok(candidate),
            Err(error @ Refused::Mistakes(_)) if !all.is_empty() => error,
            Err(error) => return Err(error.into()),
        };
        // One after the other: those that go together with the policy stay.
        let mut candidate = with(&[]).map_err(|_| error)?;
        let mut together = Vec::new();
        for (name, text) in all {
            together.push((name.clone(), text));
            match with(&together) {
                Ok(more) => candidate = more,
                Err(error) => {
                    together.pop();
                    let providers = sessions.forget(&name).join(", ");
                    self.news.warn(format!("{error}\nThe registration of {providers} is out of force"));
                }
            }
        }
        Ok(candidate)
    }
}

/// The policy file as it is now.
pub(super) fn read_file(file: &Path) -> Result<PolicyText> {
    let bytes = std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    let Ok(text) = String::from_utf8(bytes) else { bail!("{} is no text in UTF-8", file.display()) };
    Ok(PolicyText { text, source: file.display().to_string() })
}

/// The daemon before has this long to end.
const PATIENCE: Duration = Duration::from_secs(10);
