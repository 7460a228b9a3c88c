//! A chain of four products in every order.

use std::fs;
use std::io::{Read, Write};

use carnet_abi::{ORIGIN_AMBIGUOUS, ORIGIN_INFERRED, VERDICT_PASS, VERDICT_REDIRECT};
use carnet_e2e::origin::body_of;
use carnet_e2e::programs::{path, succeed};
use carnet_e2e::sockets::{connect, until};
use carnet_e2e::{netns, raw};
use carnet_policy::SockName;

use crate::stage::Product::{Haproxy, Inspect, Mitmproxy, Squid};
use crate::stage::Stage;
use crate::way::{decisions, passes};

#[test]
fn haproxy_squid_mitmproxy_and_the_built_in_service_in_all_orders() {
    netns::alone(|| {
        let mut stage = all_four();
        let orders = orders(4);
        assert_eq!(orders.len(), 24);
        for (turn, order) in orders.iter().enumerate() {
            println!("{order:?}");
            stage.rank(order);
            for family in [0, 1] {
                passes(&mut stage, order, family, &format!("/{turn}/{family}"));
            }
        }
    });
}

/// Many at once, to one destination and of one user. Behind a service that carries no records they cannot be told apart,
/// and each service has as many as there are.
#[test]
fn many_at_once_through_all_four() {
    const FLOWS: usize = 60;
    netns::alone(|| {
        let mut stage = all_four();
        for (turn, order) in [[0, 1, 2, 3], [3, 2, 1, 0]].iter().enumerate() {
            stage.rank(order);
            decisions(&mut stage);
            let paths: Vec<_> = (0..FLOWS).map(|flow| format!("/{turn}/{flow}")).collect();
            let url = format!("http://{}/{turn}/[0-{}]", stage.http[0].address, FLOWS - 1);
            let mut curl = stage.sandbox.app_command("curl");
            curl.args([
                "-sS",
                "--fail",
                "--max-time",
                "30",
                "--parallel",
                "--parallel-immediate",
                "--parallel-max",
                "60",
            ]);
            let body = stage.file("body-#1");
            succeed(curl.env("PATH", path()).arg(url).arg("-o").arg(&body));
            for (flow, path) in paths.iter().enumerate() {
                assert_eq!(fs::read_to_string(stage.file(&format!("body-{flow}"))).unwrap(), body_of(path));
            }
            let mut had = [0; 5];
            for event in decisions(&mut stage) {
                assert!([VERDICT_REDIRECT, VERDICT_PASS].contains(&event.verdict), "{event:#?}");
                assert_eq!(event.record.origin.flags & ORIGIN_AMBIGUOUS, 0, "{event:#?}");
                had[event.handle as usize] += 1;
            }
            assert_eq!(had, [FLOWS; 5], "those that have arrived, and each service's");
            let served =
                || stage.http[0].served().into_iter().filter(|exchange| paths.contains(&exchange.path)).count();
            until("the origin to be done", || (served() >= FLOWS).then_some(()));
            assert_eq!(served(), FLOWS);
            until("the flows to be over", || (stage.sandbox.engine.open_flights().unwrap() == 0).then_some(()));
        }
    });
}

/// HAProxy holds flows of two users to one destination: whose its connections are cannot be known from then on, at no hop.
/// They are HAProxy's own, and each service has them once all the same.
#[test]
fn two_users_at_once_are_nobody_in_particular_behind_haproxy() {
    netns::alone(|| {
        let mut stage = all_four();
        let destination = stage.http[0].address;
        let mut held = stage.sandbox.in_app(|| raw::as_nobody(|| connect(destination))).unwrap();
        // HAProxy goes on at once, Squid waits for a request.
        let mut first = Vec::new();
        until("HAProxy's connection to Squid", || {
            first.extend(decisions(&mut stage));
            (first.len() == 2).then_some(())
        });
        assert_eq!(
            [0, 1].map(|hop| (first[hop].handle, first[hop].record.origin.uid)),
            [1, 2].map(|n| (n, raw::NOBODY))
        );
        assert_eq!([0, 1].map(|hop| first[hop].record.origin.flags), [0, ORIGIN_INFERRED]);

        stage.fetch("/root", 0);
        let second = decisions(&mut stage);
        let told: Vec<_> = second.iter().map(|event| (event.verdict, event.handle)).collect();
        let redirected = |handle| (VERDICT_REDIRECT, handle);
        assert_eq!(
            told,
            [redirected(1), redirected(2), redirected(3), redirected(4), (VERDICT_PASS, 0)],
            "{second:#?}"
        );
        assert_eq!((second[0].record.origin.uid, second[0].record.origin.flags), (0, 0));
        assert!(second[1..].iter().all(|event| event.record.origin.flags & ORIGIN_AMBIGUOUS != 0), "{second:#?}");

        // Nobody's flow goes on where it was.
        write!(held, "GET /nobody HTTP/1.1\r\nHost: {destination}\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        held.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("/nobody/nobody"), "{answer}");
        let rest: Vec<_> = decisions(&mut stage).iter().map(|event| (event.verdict, event.handle)).collect();
        assert_eq!(rest, [redirected(3), redirected(4), (VERDICT_PASS, 0)]);
    });
}

/// In this order, until a test says otherwise.
fn all_four() -> Stage {
    let mut stage = Stage::new();
    // HAProxy asks for SO_ORIGINAL_DST by IPv4, and looks at its own address by IPv6.
    stage.add(Haproxy, SockName::Destination);
    stage.add(Squid, SockName::Own);
    stage.add(Mitmproxy, SockName::Own);
    stage.add(Inspect, SockName::Own);
    stage
}

/// All orders of 0..count.
pub fn orders(count: usize) -> Vec<Vec<usize>> {
    if count == 0 {
        return vec![Vec::new()];
    }
    let insert_last = |shorter: Vec<usize>| {
        (0..=shorter.len()).map(move |at| [&shorter[..at], &[count - 1], &shorter[at..]].concat())
    };
    orders(count - 1).into_iter().flat_map(insert_last).collect()
}
