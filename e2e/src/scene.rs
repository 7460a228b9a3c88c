use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;

use carnet::{Flow, Redirect};
use carnet_abi::{CARNET_RECORDS, SOL_CARNET};
use carnet_engine::Options;
use carnet_policy::{HostAction, Match, Service as Kind};
use socket2::Socket;

use crate::sockets::{accept, connect_on, listen, stream};
use crate::{Sandbox, Service, raw};

/// Two services and a server. A connection has come to the first service; what that one dials comes to the second.
pub struct Scene {
    /// Its cgroups and engine.
    pub sandbox: Sandbox,
    /// The destination.
    pub server: TcpListener,
    /// The service of lower rank.
    pub first: Service,
    /// The service of higher rank.
    pub second: Service,
    /// The application's end.
    pub client: TcpStream,
    /// The first service's end.
    pub accepted: TcpStream,
}

impl Default for Scene {
    fn default() -> Self {
        Self::new()
    }
}

impl Scene {
    /// With default options.
    pub fn new() -> Self {
        Self::with(&Options::default())
    }

    /// With options.
    pub fn with(options: &Options) -> Self {
        let mut sandbox = Sandbox::with(options);
        let server = listen("127.0.0.1:0");
        let [first, second] = [(); 2].map(|()| sandbox.service(Kind::Aware));
        let (client, accepted) = sandbox.arrive(&first, server.local_addr().expect("bound"));
        Self { sandbox, server, first, second, client, accepted }
    }

    /// Where the application goes.
    pub fn destination(&self) -> SocketAddr {
        self.server.local_addr().expect("bound")
    }

    /// Has connections to this port go straight there.
    pub fn let_pass(&mut self, to: SocketAddr) {
        self.sandbox.host_filter(Match::default().on_ports(to.port()..=to.port()), HostAction::Permit);
    }

    /// The record as the first service reads it now.
    pub fn blob(&self) -> Vec<u8> {
        Redirect::of(&self.accepted).records().expect("records").as_bytes().to_vec()
    }

    /// A new socket of the first service.
    pub fn socket(&self) -> Socket {
        self.sandbox.in_service(0, || stream(self.destination()))
    }

    /// SET, by a process of that service.
    pub fn set(&self, service: usize, socket: &Socket, blob: &[u8]) -> Result<(), i32> {
        self.sandbox.in_service(service, || set_records(socket, blob))
    }

    /// The first service goes on with this socket, which the second one accepts.
    pub fn dial(&self, socket: Socket) -> (Socket, TcpStream) {
        let onward = self.sandbox.in_service(0, || connect_on(socket, &self.destination().into())).expect("connect");
        (onward.into(), accept(&self.second.listeners[0]))
    }

    /// What the second service is told of it.
    pub fn go_on(&self, socket: Socket) -> Flow {
        let (_onward, at_second) = self.dial(socket);
        Redirect::of(&at_second).flow().expect("flow")
    }

    /// As the flow that `before` is about.
    pub fn assert_goes_on(&self, socket: Socket, before: &Flow) {
        let flow = self.go_on(socket);
        assert_eq!((flow.id(), flow.origin()), (before.id(), before.origin()));
        assert_eq!((flow.depth(), before.depth()), (2, 1));
    }

    /// As a connection of the service's own.
    pub fn assert_goes_on_as_nothing(&self, socket: Socket) {
        let flow = self.go_on(socket);
        assert_eq!(flow.depth(), 1);
        assert_eq!(flow.origin().cgroup_id, self.sandbox.service_cgroup(0).id());
    }
}

/// SET, by whoever calls.
pub fn set_records(socket: &impl AsFd, blob: &[u8]) -> Result<(), i32> {
    raw::set(socket, SOL_CARNET, CARNET_RECORDS, blob)
}
