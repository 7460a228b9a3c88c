//! Applications and services in containers: in network, user, pid and cgroup namespaces of their own, made by the test.
//! A provider has a listener where one is in the *socket's* network namespace, and nowhere else.
#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]
#![forbid(unsafe_code)]

mod chain;
mod container;
mod dead;
mod identity;
mod listener;
mod moved;
mod network;
mod run;
mod runtimes;
mod strangers;

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;

use carnet::{Flow, Redirect};
use carnet_abi::{EVENT_CONNECT, Event};
use carnet_e2e::netns::Namespace;
use carnet_e2e::sockets::{listen, until};
use carnet_e2e::{Sandbox, Service};
use carnet_engine::Options;

use self::container::Container;

/// A destination at which nobody is.
const ANYWHERE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9);

/// With an account of the sockets that the engine knows.
fn sandbox() -> Sandbox {
    Sandbox::with(&Options { for_test: true, ..Options::default() })
}

/// An application in a container.
fn application(sandbox: &Sandbox, name: &str, namespaces: &[&str]) -> Container {
    Container::start(sandbox.app_cgroup().child(name).unwrap(), namespaces)
}

/// The listeners of a service once more, at the same addresses, in another network namespace: as a process on the host
/// makes them that moves there (`setns`) and back.
fn listen_in(sandbox: &Sandbox, service: &Service, namespace: &Namespace) -> Vec<TcpListener> {
    let addresses = service.listeners.iter().map(|listener| listener.local_addr().unwrap().to_string());
    let addresses: Vec<_> = addresses.collect();
    sandbox.in_service(service.index, || namespace.within(|| addresses.iter().map(|at| listen(at)).collect()))
}

fn flow_of(accepted: &impl AsFd) -> Flow {
    Redirect::of(accepted).flow().expect("flow")
}

fn at(listener: &TcpListener) -> SocketAddr {
    listener.local_addr().unwrap()
}

/// A container's connect(), and the one decision on it.
fn decided(sandbox: &mut Sandbox, container: &Container, to: SocketAddr) -> (Result<TcpStream, i32>, Event) {
    sandbox.events();
    let result = container.dial(to);
    let decisions: Vec<_> = sandbox.events().into_iter().filter(|event| event.kind == EVENT_CONNECT).collect();
    let [decision] = decisions[..] else { panic!("there was one connect(), and these decisions: {decisions:#?}") };
    (result, decision)
}

/// Every socket that the engine knew is gone, and with it everything of the engine's.
fn assert_nothing_left(sandbox: &Sandbox) {
    let engine = &sandbox.engine;
    until("the last socket to go", || (engine.open_sockets().unwrap() == 0).then_some(()));
    assert_eq!((engine.open_handovers().unwrap(), engine.open_flights().unwrap()), (0, 0));
}
