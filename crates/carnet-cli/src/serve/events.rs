//! From the kernel's events to flows, for those who follow them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use carnet_control::{Flow, FlowLine};
use carnet_engine::EventReader;
use tokio::sync::broadcast;

use crate::run::complain;
use crate::run::flows::{Joiner, Known, Output};
use crate::run::output::{Clock, json};

/// Flows that are open, and those that end.
pub struct Flows {
    joiner: Mutex<Joiner>,
    clock: Clock,
    ended: broadcast::Sender<Arc<FlowLine>>,
    of_origins: broadcast::Sender<OfOrigin>,
}

/// A line, and the id of the cgroup of the application that it is about.
pub type OfOrigin = (u64, Arc<FlowLine>);

impl Flows {
    /// Nothing is read yet.
    pub fn new() -> Self {
        let ended = broadcast::Sender::new(FOLLOWERS_MAY_LAG);
        let of_origins = broadcast::Sender::new(FOLLOWERS_MAY_LAG);
        Self { joiner: Mutex::new(Joiner::new(HashMap::new())), clock: Clock::now(), ended, of_origins }
    }

    /// Reads events on a thread of its own, for as long as the process lives.
    pub fn read(self: &Arc<Self>, mut events: EventReader) -> Result<()> {
        let flows = Arc::clone(self);
        let read = move || {
            loop {
                let each = &mut |event: &carnet_abi::Event| flows.event(event);
                if let Err(error) = events.poll(PATIENCE, each) {
                    complain(&format!("{error}. Flows are not told any more"));
                    return;
                }
            }
        };
        thread::Builder::new().name("events".into()).spawn(read).context("cannot start a thread")?;
        Ok(())
    }

    /// The services from now on, by their handles.
    pub fn know(&self, services: HashMap<u32, Known>) {
        self.joiner().know(services);
    }

    /// Those that are open, oldest first.
    pub fn open(&self) -> Vec<Flow> {
        let open = self.joiner().open_flows();
        let lines = open.iter().filter_map(|flow| line(&json::flow(flow, &self.clock)));
        lines.filter_map(|line| if let FlowLine::Flow(flow) = line { Some(*flow) } else { None }).collect()
    }

    /// How many are, in all and by service.
    pub fn counts(&self) -> (usize, HashMap<String, u64>) {
        let joiner = self.joiner();
        (joiner.open(), joiner.open_by_service())
    }

    /// Those that end from now on.
    pub fn follow(&self) -> broadcast::Receiver<Arc<FlowLine>> {
        self.ended.subscribe()
    }

    /// The same with their origins.
    pub fn follow_origins(&self) -> broadcast::Receiver<OfOrigin> {
        self.of_origins.subscribe()
    }

    fn event(&self, event: &carnet_abi::Event) {
        let Some(output) = self.joiner().event(event) else { return };
        if self.ended.receiver_count() + self.of_origins.receiver_count() == 0 {
            return;
        }
        let json = match &output {
            Output::Flow(flow) => json::flow(flow, &self.clock),
            Output::Socket(socket) => json::socket(socket, &self.clock),
            Output::Warning(warning) => json::warning(warning),
        };
        if let Some(line) = line(&json) {
            let line = Arc::new(line);
            // Nobody may be there any more.
            let _ = self.of_origins.send((event.record.origin.cgroup_id, Arc::clone(&line)));
            let _ = self.ended.send(line);
        }
    }

    fn joiner(&self) -> MutexGuard<'_, Joiner> {
        self.joiner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The flow log's lines are the control API's.
fn line(json: &str) -> Option<FlowLine> {
    serde_json::from_str(json).ok()
}

/// Lines that a follower may be behind before it loses some.
const FOLLOWERS_MAY_LAG: usize = 4096;
const PATIENCE: Duration = Duration::from_millis(200);
