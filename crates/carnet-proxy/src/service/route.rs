use std::net::SocketAddr;

use carnet::{Flow, Redirect};
use tokio::net::{TcpSocket, TcpStream};

/// Where an accepted connection goes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Route {
    pub(super) flow_id: u128,
    pub(super) depth: usize,
    pub(super) destination: SocketAddr,
}

/// Who knows that. The seam at which the rest of the service is tested without an engine.
pub(super) trait Routes: Send + Sync + 'static {
    fn route(&self, accepted: &TcpStream) -> Result<Route, carnet::Error>;

    /// Carries the record over to the socket with which to go on, just before it connects.
    fn carry(&self, accepted: &TcpStream, onward: &TcpSocket) -> Result<(), carnet::Error>;

    /// Whose the flow is.
    fn uid(&self, accepted: &TcpStream) -> Option<u32> {
        self.flow(accepted).map(|flow| flow.origin().uid)
    }

    /// All that is known of the flow.
    fn flow(&self, _accepted: &TcpStream) -> Option<Flow> {
        None
    }
}

/// The kernel's records.
pub(super) struct Recorded;

impl Routes for Recorded {
    fn route(&self, accepted: &TcpStream) -> Result<Route, carnet::Error> {
        let flow = Redirect::of(accepted).flow()?;
        Ok(Route { flow_id: flow.id(), depth: flow.depth(), destination: flow.destination() })
    }

    fn carry(&self, accepted: &TcpStream, onward: &TcpSocket) -> Result<(), carnet::Error> {
        Redirect::of(accepted).records()?.apply_to(onward)
    }

    fn flow(&self, accepted: &TcpStream) -> Option<Flow> {
        Redirect::of(accepted).flow().ok()
    }
}
