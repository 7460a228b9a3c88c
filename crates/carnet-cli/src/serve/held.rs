//! Listeners that are kept while their providers restart, so that connections wait in their queues.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use carnet_control::Listener;

/// By provider.
#[derive(Debug, Default)]
pub struct Held(BTreeMap<String, Holding>);

#[derive(Debug)]
struct Holding {
    listeners: Vec<Listener>,
    until: Instant,
    /// They have been given back: who has them is waited for no longer than `until`.
    is_released: bool,
}

impl Held {
    /// Keeps them, in the place of those that were kept for this provider.
    pub fn hold(&mut self, provider: String, listeners: Vec<Listener>, at_most: Duration) {
        let until = Instant::now() + at_most;
        self.0.insert(provider, Holding { listeners, until, is_released: false });
    }

    /// Duplicates. The daemon's own stay until the time is over: the provider may be gone again before it has them.
    pub fn release(&mut self, provider: &str) -> Option<io::Result<Vec<Listener>>> {
        let holding = self.0.get_mut(provider)?;
        holding.is_released = true;
        // By then it accepts, or has died again: connections are not to wait for nobody.
        holding.until = holding.until.min(Instant::now() + TIME_TO_ACCEPT);
        let duplicate = |listener: &Listener| {
            let descriptor: OwnedFd = listener.as_fd().try_clone_to_owned()?;
            Listener::try_from(descriptor).map_err(io::Error::other)
        };
        Some(holding.listeners.iter().map(duplicate).collect())
    }

    /// Providers that are waited for.
    pub fn providers(&self) -> BTreeSet<String> {
        self.0.iter().filter(|(_, holding)| !holding.is_released).map(|(name, _)| name.clone()).collect()
    }

    /// Until when listeners of one of these are kept for it.
    pub fn until(&self, providers: &[String]) -> Option<Instant> {
        let theirs = self.0.iter().filter(|(name, _)| providers.contains(name));
        theirs.map(|(_, holding)| holding.until).max()
    }

    /// Closes those whose time is over. Returns names of providers that have not asked for theirs.
    pub fn let_go(&mut self) -> Vec<String> {
        let now = Instant::now();
        let over = self.0.extract_if(.., |_, holding| holding.until < now);
        over.filter(|(_, holding)| !holding.is_released).map(|(name, _)| name).collect()
    }

    /// Closes those of a provider.
    pub fn forget(&mut self, provider: &str) {
        self.0.remove(provider);
    }
}

/// A provider that has its listeners again has this long before the daemon closes its own descriptors of them.
const TIME_TO_ACCEPT: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn connections_wait_while_listeners_are_held() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let mut held = Held::default();
        held.hold("a".into(), vec![listener.try_into().unwrap()], Duration::from_secs(60));
        assert_eq!(held.providers(), ["a".into()].into());
        let waiting = TcpStream::connect(address).unwrap();

        let released = held.release("a").unwrap().unwrap();
        assert!(held.providers().is_empty() && held.release("b").is_none());
        let released: Vec<TcpListener> = released.into_iter().map(TcpListener::from).collect();
        assert_eq!(released[0].accept().unwrap().1, waiting.local_addr().unwrap());

        held.forget("a");
        drop(released);
        assert!(TcpStream::connect(address).is_err(), "nobody has it any more");
    }

    #[test]
    fn nothing_is_held_longer_than_asked_for() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let mut held = Held::default();
        held.hold("a".into(), vec![listener.try_into().unwrap()], Duration::ZERO);
        while held.let_go() != ["a"] {}
        assert!(TcpStream::connect(address).is_err());
    }
}
