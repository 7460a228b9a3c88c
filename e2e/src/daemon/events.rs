use std::fmt::Write;
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::Instant;

use carnet_control::{Client, Event, EventKind, EventLine};

use crate::sockets::PATIENCE;

/// What a daemon tells of what happens, from the moment on at which this was made and until the daemon ends.
pub struct Events {
    lines: Receiver<EventLine>,
    /// Those that were read.
    seen: Vec<Event>,
}

impl Events {
    pub(super) fn of(socket: &Path) -> Self {
        let (told, lines) = channel();
        let (begun, beginning) = channel();
        let socket = socket.to_owned();
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let client = Client::connect(socket).await.expect("a daemon");
                let mut lines = client.events().await.expect("an answer");
                begun.send(()).expect("the test waits");
                while let Ok(Some(line)) = lines.next().await {
                    if told.send(line).is_err() {
                        return;
                    }
                }
            });
        });
        beginning.recv_timeout(PATIENCE).expect("the daemon tells of events");
        Self { lines, seen: Vec::new() }
    }

    /// Waits for one of this kind that says this.
    pub fn wait_for(&mut self, kind: EventKind, words: &str) -> Event {
        self.wait_until(&format!("{kind:?} {words:?}"), |event| event.event == kind && event.message.contains(words))
    }

    /// Waits for one.
    pub fn wait_until(&mut self, what: &str, is_wanted: impl Fn(&Event) -> bool) -> Event {
        let end = Instant::now() + PATIENCE;
        loop {
            match self.lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(EventLine::Event(event)) => {
                    self.seen.push(event.clone());
                    if is_wanted(&event) {
                        return event;
                    }
                }
                Ok(_) => {}
                Err(RecvTimeoutError::Timeout) => panic!("there is no event {what}:\n{}", self.shown()),
                Err(RecvTimeoutError::Disconnected) => panic!("no more events, and none {what}:\n{}", self.shown()),
            }
        }
    }

    /// All that have come until now.
    pub fn all(&mut self) -> &[Event] {
        while let Ok(line) = self.lines.try_recv() {
            if let EventLine::Event(event) = line {
                self.seen.push(event);
            }
        }
        &self.seen
    }

    fn shown(&self) -> String {
        self.seen.iter().fold(String::new(), |mut all, event| {
            writeln!(all, "{:?}: {}", event.event, event.message).expect("a text");
            all
        })
    }
}
