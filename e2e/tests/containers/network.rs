//! What an application can do that may change its container's network: `CAP_NET_ADMIN` over the namespace is enough.

use std::net::SocketAddr;
use std::time::Duration;

use carnet_abi::{EVENT_CONNECT, VERDICT_REDIRECT};
use carnet_e2e::actor::{Call, Family};
use carnet_e2e::netns::{Namespace, with_neighbour};
use carnet_e2e::programs::{program, require, succeed};
use carnet_e2e::sockets::{is_idle, listen};
use carnet_policy::Service as Kind;
use socket2::SockRef;

use crate::container::Container;
use crate::{at, listen_in, sandbox};

/// A rule of the container's own firewall would lead out of it what was redirected to the service's listener: `connect()`
/// is decided on, and packets are translated after that.
#[test]
fn a_nat_rule_in_the_container_leads_nowhere() {
    require(&["nft"]);
    with_neighbour(Namespace::own, |neighbour| {
        let mut sandbox = sandbox();
        let service = sandbox.service(Kind::Aware);
        let inside = listen_in(&sandbox, &service, &neighbour);
        let cgroup = sandbox.app_cgroup().child("container").unwrap();
        let container = neighbour.within(|| Container::start(cgroup, &["env"]));
        let server = listen("10.99.0.1:0");
        let rules = format!(
            "add table ip past; add chain ip past output {{ type nat hook output priority -100; }}; \
             add rule ip past output ip daddr 127.0.0.1 tcp dport {} dnat to {}",
            at(&inside[0]).port(),
            at(&server),
        );
        neighbour.within(|| succeed(program("nft").arg(rules)));

        let socket = container.socket(Family::V4);
        let own: SocketAddr = ([10, 99, 0, 2], 0).into();
        assert_eq!(container.call(&Call::Bind(own), &socket).error, 0);
        // Its SYN is dropped, as often as it is sent; one second is enough to see.
        SockRef::from(&socket).set_tcp_user_timeout(Some(Duration::from_millis(500))).unwrap();
        sandbox.events();
        assert_eq!(container.connect(socket, at(&server)).unwrap_err(), libc::ETIMEDOUT);
        assert!(inside.iter().chain([&server]).all(is_idle));
        let decision = sandbox.events().into_iter().find(|event| event.kind == EVENT_CONNECT).expect("a decision");
        assert_eq!(decision.verdict, VERDICT_REDIRECT);
    });
}
