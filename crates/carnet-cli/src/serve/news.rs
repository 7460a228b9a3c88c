//! What has happened, for those who follow it and for the daemon's own log.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use carnet_control::{Event, EventKind};
use jiff::Timestamp;
use tokio::sync::broadcast;

use crate::run::complain;

/// Tells it.
#[derive(Debug)]
pub struct News {
    sender: broadcast::Sender<Arc<Event>>,
    said: Mutex<HashMap<String, Instant>>,
}

impl News {
    /// Nobody follows yet.
    pub fn new() -> Self {
        Self { sender: broadcast::Sender::new(MOST_BEHIND), said: Mutex::default() }
    }

    /// Events from now on.
    pub fn follow(&self) -> broadcast::Receiver<Arc<Event>> {
        self.sender.subscribe()
    }

    /// An event of now that is about nobody yet.
    pub fn event(&self, event: EventKind, message: String) -> Event {
        let time = Timestamp::now().to_string();
        Event { time, event, provider: None, state: None, session: None, stranger: None, message }
    }

    /// Something that is about nobody.
    pub fn tell(&self, kind: EventKind, message: String) {
        self.send(Arc::new(self.event(kind, message)));
    }

    /// Something that people should know.
    pub fn warn(&self, message: String) {
        self.tell(EventKind::Warning, message);
    }

    /// The same, said once an hour.
    pub fn once(&self, message: String) {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        said.retain(|_, when| when.elapsed() < SAID_AGAIN);
        if said.len() < MOST_SAID && !said.contains_key(&message) {
            said.insert(message.clone(), Instant::now());
            self.warn(message);
        }
    }

    /// To those who follow, and to the log.
    pub fn send(&self, event: Arc<Event>) {
        complain(&event.message);
        // Nobody may follow.
        let _ = self.sender.send(event);
    }
}

const MOST_BEHIND: usize = 1024;
const MOST_SAID: usize = 256;
const SAID_AGAIN: Duration = Duration::from_secs(3600);
