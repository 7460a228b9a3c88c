use std::{io, net::SocketAddr};

use carnet::Redirect;
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
}

impl Route {
    pub(super) fn socket(&self) -> io::Result<TcpSocket> {
        if self.destination.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }
    }
}
