//! The listener's side of a connection, and what the engine counts of those under way.

use std::net::SocketAddr;

use carnet_policy::Service as Kind;

use super::{Accepted, Model, Record, Role, SockId, Told};

/// The flows which an unaware service holds to one destination.
#[derive(Clone, Debug)]
pub struct Flight {
    handle: u32,
    remote: SocketAddr,
    held: u32,
    pub ambiguous: bool,
    pub record: Record,
}

impl Model {
    /// The listener's new socket: does it get a record, or should it have had one?
    pub(super) fn arrive(&mut self, id: SockId, child: SockId, maker: Role, port: u16) {
        let announced = self.socks[id].decided.as_ref().filter(|decided| decided.counted).cloned();
        let owners = self.owned_by(maker);
        let Some(decided) = announced else {
            let on_port = |at: &usize| self.policy.providers[*at].listeners.iter().any(|at| at.port() == port);
            let owners: Vec<usize> = owners.into_iter().filter(on_port).collect();
            if let Some(at) = self.highest(&owners) {
                self.socks[child].accepted = Accepted::Lost;
                self.told.push(Told::Lost { sock: child, handle: self.policy.providers[at].handle });
            }
            return;
        };
        let provider = self.provider_with(decided.handle).map(|at| &self.policy.providers[at]);
        let unaware = provider.is_some_and(|provider| provider.service == Kind::Unaware);
        let filter = decided.record.chain.last().map_or(0, |hop| hop.1);
        let context = self.context_of(filter).filter(|bytes| !bytes.is_empty());
        if unaware {
            self.hold(decided.handle, decided.remote, &decided.record);
        }
        self.socks[child].accepted = Accepted::With {
            record: decided.record,
            remote: decided.remote,
            context: context.map(|bytes| (self.generation, bytes)),
            flight: unaware,
            handle: decided.handle,
        };
    }

    /// Connections under way that were handed to this provider.
    pub(super) fn clients(&self, handle: u32, remote: SocketAddr) -> u32 {
        let counted = self
            .socks
            .iter()
            .filter_map(|sock| sock.decided.as_ref())
            .filter(|decided| decided.counted && decided.handle == handle && decided.remote == remote);
        counted.count() as u32
    }

    pub(super) fn flight(&self, handle: u32, remote: SocketAddr) -> Option<&Flight> {
        self.flights.iter().find(|flight| flight.handle == handle && flight.remote == remote)
    }

    fn hold(&mut self, handle: u32, remote: SocketAddr, record: &Record) {
        match self.flights.iter_mut().find(|flight| flight.handle == handle && flight.remote == remote) {
            Some(flight) => {
                flight.held += 1;
                // One identity: here, one cgroup.
                let who = |record: &Record| (record.origin.by, record.origin.ambiguous, record.origin.strayed);
                flight.ambiguous |= who(&flight.record) != who(record);
                flight.record = record.clone();
            }
            None => {
                self.flights.push(Flight { handle, remote, held: 1, ambiguous: false, record: record.clone() });
            }
        }
    }

    pub(super) fn let_go(&mut self, handle: u32, remote: SocketAddr) {
        for flight in &mut self.flights {
            if flight.handle == handle && flight.remote == remote {
                flight.held -= 1;
            }
        }
        self.flights.retain(|flight| flight.held > 0);
    }
}
