//! Once a second: who listens, and what of that which the policy names has become another thing.

use std::time::{Duration, Instant};

use anyhow::Result;
use carnet_abi::COUNT_EVENTS_LOST;
use carnet_control::{EventKind, ProviderState};
use carnet_engine::cgroup::Cgroup;

use super::{Core, Ground};
use crate::serve::health::Listening;
use crate::serve::places::{Places, Seen};
use crate::serve::policy::Refused;
use crate::serve::sessions::TIME_TO_COME_BACK;

impl Core {
    /// Looks again at what the policy names and who listens, and puts in force what has come of it. To be called about
    /// once a second.
    pub fn look(&mut self) {
        self.follow_governed();
        self.forget_orphans();
        self.namespaces.forget_unused();
        self.count_lost();
        if self.key_made.elapsed() > KEY_LIFE {
            self.key_made = Instant::now();
            if let Err(error) = self.engine.rotate_key() {
                self.news.warn(error.to_string());
            }
        }
        for provider in self.held.let_go() {
            let what = format!("the listeners of {provider} are held no more: their time is over");
            self.tell_provider(EventKind::Released, &provider, self.health.state(&provider), what);
        }
        self.follow_up();
    }

    /// Puts in force what has come of a change, and says what has become of providers.
    pub fn follow_up(&mut self) {
        if let Err(refused) = self.follow() {
            let complaint = refused.to_string();
            if self.complaint.as_ref() != Some(&complaint) {
                self.news.tell(EventKind::Refused, complaint.clone());
            }
            self.complaint = Some(complaint);
        } else {
            self.complaint = None;
        }
        if let Err(error) = self.look_at_listeners() {
            self.news.warn(crate::one_line(&error));
        }
    }

    /// What is named may have changed, and so may registrations.
    fn follow(&mut self) -> Result<(), Refused> {
        let kept = self.programs.kept();
        let candidate = match self.is_stale {
            true => self.candidate.with(&self.sessions.texts(), &self.host, kept)?,
            false => self.candidate.again(&self.host, kept)?,
        };
        if self.is_stale || self.effective(&candidate) != self.in_force.policy {
            return self.put_in_force(candidate, None);
        }
        self.candidate = candidate;
        self.note_replaced();
        Ok(())
    }

    fn look_at_listeners(&mut self) -> Result<()> {
        let policy = &self.in_force.policy;
        self.listening = Listening::now(policy, &self.ground.hierarchy)?;
        let changes = self.health.look(policy, &self.listening, &self.held.providers(), &self.marked());
        for change in &changes {
            let kind = match change.state {
                ProviderState::Stranger => EventKind::Stranger,
                _ => EventKind::Provider,
            };
            self.tell_change(kind, change);
        }
        self.attach_services()
    }

    /// Services come and go: they are made again in cgroups with other ids, or move.
    pub(super) fn attach_services(&mut self) -> Result<()> {
        let Ground { hierarchy, governed, .. } = &self.ground;
        // Those of listeners that are gone may be others' by now.
        self.state.marked.retain(|inode| self.listening.has(*inode));
        let marked = self.marked();
        let seen = Seen { listening: &self.listening, marked: &marked };
        let (places, above) = Places::of(&self.in_force.policy, seen, &self.in_force.places, hierarchy, governed)?;
        for path in above {
            self.news.once(format!(
                "a service is in {}, which holds what is governed, too: it gets no records. Give it a cgroup of its own",
                path.display()
            ));
        }
        places.attach(&mut self.engine, hierarchy)?;
        // Where services of the daemon before were seen is not known: they get time to listen again.
        if !self.is_adopted || self.began.elapsed() > TIME_TO_COME_BACK {
            places.detach_others(&mut self.engine, hierarchy, self.governed.id(), &mut self.unneeded)?;
        }
        self.in_force.places = places;
        Ok(())
    }

    /// The governed cgroup may have been made again.
    fn follow_governed(&mut self) {
        let Ok(now) = Cgroup::open(&self.ground.hierarchy, &self.ground.governed) else {
            self.news.once(format!("the governed cgroup {} is gone", self.ground.governed.display()));
            return;
        };
        if now.id() == self.governed.id() {
            return;
        }
        let moved = self.engine.attach_governed(&now).and_then(|()| self.engine.govern(&now));
        match moved {
            Ok(()) => {
                self.news.warn(format!("the governed cgroup {} was made again", now.path().display()));
                self.governed = now;
            }
            Err(error) => self.news.once(error.to_string()),
        }
    }

    fn forget_orphans(&mut self) {
        for (id, session) in self.sessions.forget_orphans() {
            self.is_over(id, &session, "is over: it did not come back");
        }
    }

    fn count_lost(&mut self) {
        let Ok(counters) = self.engine.counters() else { return };
        let lost = counters[COUNT_EVENTS_LOST];
        if lost > self.lost {
            let what = format!("{} events had no room: flows may be missing, or look open for ever", lost - self.lost);
            self.news.tell(EventKind::EventsLost, what);
        }
        self.lost = lost;
    }
}

/// A new key for records this often.
const KEY_LIFE: Duration = Duration::from_secs(3600);
