//! What the kernel answers by itself: the measure of what Carnet leaves alone.

use super::attempt::User;
use super::cell::{Bind, Cell, Family, Place};
use super::door::Doors;
use super::judge::{self, Outcome};
use super::model::speaks;

/// Each of these, and how it ends without Carnet.
pub fn outcomes(cells: &[Cell], user: User, servers: &mut Doors) -> Vec<(Cell, Outcome)> {
    let judged = user.connect(cells, servers).into_iter().map(|mut attempt| {
        let outcome = judge::direct(&mut attempt, servers);
        (attempt.cell, outcome.unwrap_or_else(|error| panic!("{}: {error:#}", attempt.cell)))
    });
    judged.collect()
}

/// What is known of the kernel. A measure that nobody knows could be wrong for all.
pub fn known(cell: Cell) -> Outcome {
    let from_loopback = matches!(cell.bind, Bind::To(_, Place::Loopback));
    match cell.family {
        // A mapped destination, and a socket that speaks IPv6 alone.
        Family::V4 if !speaks(cell, Family::V4) => Err(libc::ENETUNREACH),
        // An IPv6 destination, and a mapped source.
        Family::V6 if !speaks(cell, Family::V6) => Err(libc::EAFNOSUPPORT),
        // With a loopback source no IPv4 packet leaves the host. An IPv6 one does, and the other host drops it.
        Family::V4 if from_loopback && !Place::HERE.contains(&cell.place) => Err(libc::EINVAL),
        Family::V6 if from_loopback && cell.place == Place::Other => Err(libc::ETIMEDOUT),
        // Nobody answers.
        _ if cell.place == Place::Nowhere => Err(libc::ETIMEDOUT),
        _ => Ok(match (cell.bind, cell.place) {
            (Bind::To(_, place), _) => place,
            (_, Place::Other) => Place::Own,
            // A local address is reached from itself.
            (_, local) => local,
        }
        .ip(cell.family)),
    }
}

/// The matrix rests on these three: they are why a listener of the other family is refused, or reached all the same.
mod surprises {
    use std::net::SocketAddr;

    use carnet_e2e::netns;
    use carnet_e2e::sockets::{accept, connect_on, listen};
    use socket2::{Domain, Protocol, Socket, Type};

    use super::*;
    use crate::cell::Kind;
    use crate::{doors_at, servers};

    #[test]
    fn a_socket_bound_to_an_ipv6_address_is_v6_only() {
        let socket = dual_stack("[::1]:0");
        assert!(socket.only_v6().unwrap());
        let server = listen("127.0.0.1:0");
        assert_eq!(connect_on(socket, &mapped(&server).into()).unwrap_err(), libc::ENETUNREACH);
        // The wildcard does not make it so.
        let socket = dual_stack("[::]:0");
        assert!(!socket.only_v6().unwrap());
        connect_on(socket, &mapped(&server).into()).expect("connect");
        accept(&server);
    }

    #[test]
    fn a_socket_bound_to_the_mapped_wildcard_is_an_ipv4_one() {
        let server = listen("[::1]:0");
        let there = server.local_addr().unwrap();
        assert_eq!(connect_on(dual_stack("[::ffff:0.0.0.0]:0"), &there.into()).unwrap_err(), libc::EAFNOSUPPORT);
        let server = listen("127.0.0.1:0");
        connect_on(dual_stack("[::ffff:0.0.0.0]:0"), &mapped(&server).into()).expect("connect");
        accept(&server);
    }

    #[test]
    fn an_ipv6_packet_from_loopback_leaves_the_host_and_vanishes() {
        netns::with_neighbour(
            || doors_at(Place::Other),
            |others| {
                let bind = |family| Bind::To(family, Place::Loopback);
                let v4 = Cell { kind: Kind::V4, bind: bind(Family::V4), family: Family::V4, place: Place::Other };
                let v6 = Cell { kind: Kind::V6Only, bind: bind(Family::V6), family: Family::V6, place: Place::Other };
                let outcomes = outcomes(&[v4, v6], User::Root, &mut servers(others));
                assert_eq!(outcomes, [(v4, Err(libc::EINVAL)), (v6, Err(libc::ETIMEDOUT))]);
            },
        );
    }

    fn dual_stack(bind: &str) -> Socket {
        let socket = Socket::new(Domain::IPV6, Type::STREAM, Some(Protocol::TCP)).expect("a socket");
        socket.set_only_v6(false).expect("IPV6_V6ONLY");
        socket.bind(&bind.parse::<SocketAddr>().unwrap().into()).expect("bind");
        socket
    }

    fn mapped(server: &std::net::TcpListener) -> SocketAddr {
        Kind::Dual.write(server.local_addr().unwrap())
    }
}
