use std::fmt;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use carnet_abi::Event;
use libbpf_rs::{Map, RingBuffer, RingBufferBuilder};

use crate::Error;

/// Reads the kernel program's events, oldest first. What the ring buffer had no room for is in
/// [`Engine::counters`](crate::Engine::counters), under `COUNT_EVENTS_LOST`.
pub struct EventReader {
    ring: RingBuffer<'static>,
    arrived: Receiver<Event>,
}

impl EventReader {
    pub(crate) fn new(map: &Map<'_>) -> Result<Self, Error> {
        let (arrive, arrived) = channel();
        let mut builder = RingBufferBuilder::new();
        let failed = |error| Error::bpf("cannot open the event buffer", error);
        let add = builder.add(map, move |bytes| {
            // The receiver outlives the ring.
            if let Some(event) = Event::from_bytes(bytes) {
                let _ = arrive.send(event);
            }
            0
        });
        add.map_err(failed)?;
        Ok(Self { ring: builder.build().map_err(failed)?, arrived })
    }

    /// Waits at most `timeout` for events and gives each to `each`. Returns how many there were.
    pub fn poll(&mut self, timeout: Duration, each: &mut dyn FnMut(&Event)) -> Result<usize, Error> {
        match self.ring.poll(timeout) {
            Ok(()) => {}
            Err(error) if error.kind() == libbpf_rs::ErrorKind::Interrupted => {}
            Err(error) => return Err(Error::bpf("cannot read events", error)),
        }
        let mut count = 0;
        while let Ok(event) = self.arrived.try_recv() {
            each(&event);
            count += 1;
        }
        Ok(count)
    }
}

impl fmt::Debug for EventReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventReader").finish_non_exhaustive()
    }
}
