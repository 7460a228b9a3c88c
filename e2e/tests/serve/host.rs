//! A governed cgroup with services that are the test's own listeners, and destinations at which nobody listens.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;

use carnet::Redirect;
use carnet_e2e::daemon::Table;
use carnet_e2e::load::{Clients, Serving};
use carnet_e2e::sockets::{accept, connect, listen, stream};
use carnet_e2e::{Daemon, Ground, enter};
use carnet_engine::cgroup::Cgroup;
use nix::errno::Errno;
use socket2::Socket;

pub struct Host {
    pub listeners: Vec<TcpListener>,
    /// Who goes there and is not redirected is refused.
    pub destinations: [SocketAddr; 2],
    _reserved: [Socket; 2],
    /// Last, so that it goes last.
    pub ground: Ground,
}

impl Host {
    /// With so many services.
    pub fn new(services: usize) -> Self {
        let ground = Ground::new();
        let listeners =
            (0..services).map(|index| ground.within(&ground.service(index), || listen("127.0.0.1:0"))).collect();
        let reserved = [(); 2].map(|()| nobodys());
        let destinations = reserved.each_ref().map(|socket| socket.local_addr().unwrap().as_socket().unwrap());
        Self { listeners, destinations, _reserved: reserved, ground }
    }

    /// A daemon with this policy.
    pub fn daemon(&self, policy: &str) -> Daemon {
        Daemon::start(&self.ground, policy)
    }

    pub fn address(&self, service: usize) -> SocketAddr {
        self.listeners[service].local_addr().unwrap()
    }

    pub fn cgroup(&self, service: usize) -> Cgroup {
        self.ground.service(service)
    }

    /// The provider `s0`, `s1`, ... of a service.
    pub fn table(&self, service: usize, rank: u16) -> Table {
        Table::new(&format!("s{service}"), rank, &self.ground, &self.cgroup(service), &[self.address(service)])
    }

    /// Everything that goes to the destinations goes to this service first, and brings it this context.
    pub fn redirecting(&self, service: usize, context: &str) -> String {
        self.table(service, 10 * (service as u16 + 1)).redirecting_with("all", &self.conditions(), context)
    }

    /// What matches the destinations.
    pub fn conditions(&self) -> String {
        let [one, two] = self.destinations.map(|destination| destination.port());
        format!("remote = \"127.0.0.1\", remote-port = [{one}, {two}]")
    }

    /// An application's connection to the first destination, and the socket with which a service has accepted it.
    pub fn arrive(&self, service: usize) -> (TcpStream, TcpStream) {
        let client = self.connect().expect("connect");
        let accepted = accept(&self.listeners[service]);
        assert_eq!(Redirect::of(&accepted).flow().unwrap().destination(), self.destinations[0]);
        (client, accepted)
    }

    /// The same, and that it has brought this context.
    pub fn assert_goes_to(&self, service: usize, context: &str) {
        let (_client, accepted) = self.arrive(service);
        assert_eq!(Redirect::of(&accepted).context().unwrap().unwrap_or_default(), context.as_bytes());
    }

    pub fn connect(&self) -> Result<TcpStream, i32> {
        self.ground.within(&self.ground.app, || connect(self.destinations[0]))
    }

    /// Nobody's filter redirects, or nobody of the provider's listens.
    pub fn assert_refused(&self) {
        assert_eq!(self.connect().err(), Some(Errno::ECONNREFUSED as i32));
    }

    pub fn is_refused(&self) -> bool {
        self.connect().is_err_and(|error| error == Errno::ECONNREFUSED as i32)
    }

    /// Applications that connect to both destinations without end. A service is to answer them: see [`Host::serve`].
    pub fn clients(&self) -> Clients {
        Clients::start(self.destinations.map(|to| self.client(to)))
    }

    fn client(&self, to: SocketAddr) -> Command {
        let mut client = enter(&self.ground.app, env!("CARGO_BIN_EXE_carnet-e2e-pinned"));
        client.arg("connects").arg(to.to_string());
        client
    }

    /// Has a service answer connections to the destinations that bring it this context.
    pub fn serve(&self, service: usize, context: &'static str) -> Serving {
        let destinations = self.destinations;
        Serving::at(&self.listeners[service], move |accepted| {
            let redirect = Redirect::of(accepted);
            let flow = redirect.flow().map_err(|error| format!("no flow, from {:?}: {error}", accepted.peer_addr()))?;
            let brought = redirect.context().map_err(|error| format!("no context: {error}"))?.unwrap_or_default();
            if brought != context.as_bytes() || !destinations.contains(&flow.destination()) || flow.depth() != 1 {
                return Err(format!("it brought {:?}: {flow:?}", String::from_utf8_lossy(&brought)));
            }
            Ok(())
        })
    }

    /// Nothing of an engine's is in the kernel, and none of the daemon's files is left.
    pub fn assert_nothing_left(&self, daemon: &Daemon) {
        assert_eq!(self.ground.links(), [0; 0]);
        assert!(!daemon.pins().exists(), "pins");
        assert!(!daemon.socket().exists(), "its socket");
        self.assert_refused();
    }
}

/// An address that is taken, and at which nobody listens.
fn nobodys() -> Socket {
    let any = "127.0.0.1:0".parse::<SocketAddr>().unwrap();
    let socket = stream(any);
    socket.bind(&any.into()).unwrap();
    socket
}
