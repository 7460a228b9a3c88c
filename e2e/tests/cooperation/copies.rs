//! Several of one product, products that restart, and products that come while flows live.

use std::io::{Read, Write};
use std::net::TcpStream;

use carnet_abi::{REASON_DEAD, VERDICT_PASS, VERDICT_REDIRECT, VERDICT_REFUSE};
use carnet_e2e::netns;
use carnet_e2e::sockets::{connect, until};
use carnet_policy::{OnDead, SockName};

use crate::stage::Product::{Haproxy, HaproxyAgain, Inspect, Nginx};
use crate::stage::Stage;
use crate::way::{decisions, passes};

/// The same executable is behind two providers, twice. Whose a connection is goes by the cgroup.
#[test]
fn two_copies_of_a_product_are_two_services() {
    netns::alone(|| {
        let mut stage = Stage::new();
        for product in [Haproxy, HaproxyAgain, Inspect, Inspect] {
            stage.add(product, SockName::Destination);
        }
        for (turn, order) in [[0, 1, 2, 3], [3, 2, 1, 0], [2, 1, 3, 0], [1, 2, 0, 3]].into_iter().enumerate() {
            stage.rank(&order);
            for family in [0, 1] {
                passes(&mut stage, &order, family, &format!("/{turn}"));
            }
        }
    });
}

/// Two processes of one provider share its port. The kernel gives a connection to either, with its record.
#[test]
fn twins_share_the_flows_of_one_provider() {
    const FLOWS: usize = 40;
    netns::alone(|| {
        let mut stage = Stage::new();
        stage.add(Haproxy, SockName::Own);
        stage.add(Inspect, SockName::Own);
        stage.start(0);
        for flow in 0..FLOWS {
            passes(&mut stage, &[0, 1], 0, &format!("/both/{flow}"));
        }
        // Each writes a line of what it has had.
        until("both to say that they had some", || {
            let logs = stage.logs(0);
            let had = |log: &String| log.lines().filter(|line| line.contains("redirected/original")).count();
            (logs.len() == 2 && logs.iter().map(had).sum::<usize>() == FLOWS && logs.iter().all(|log| had(log) > 0))
                .then_some(())
        });
        stage.kill(0);
        for flow in 0..FLOWS / 4 {
            passes(&mut stage, &[0, 1], 0, &format!("/one/{flow}"));
        }
    });
}

/// While it is away connections are refused, or go to the next one, as the policy says. When it is back it has them again.
#[test]
fn a_product_restarts() {
    netns::alone(|| {
        let mut stage = Stage::new();
        stage.add(Haproxy, SockName::Own);
        stage.add(Inspect, SockName::Own);
        passes(&mut stage, &[0, 1], 0, "/before");
        for (turn, on_dead) in [OnDead::Closed, OnDead::Open].into_iter().enumerate() {
            stage.sandbox.policy.providers[0].on_dead = on_dead;
            stage.sandbox.apply();
            stage.kill(0);
            let mut held = None;
            if on_dead == OnDead::Closed {
                decisions(&mut stage);
                assert_eq!(stage.curl("/refused", 0).code, CURL_COULD_NOT_CONNECT);
                let told: Vec<_> = decisions(&mut stage).iter().map(|event| (event.verdict, event.reason)).collect();
                assert_eq!(told, [(VERDICT_REFUSE, REASON_DEAD)]);
            } else {
                passes(&mut stage, &[1], 0, "/without");
                held = Some(begin(&mut stage, &[2, 0]));
            }
            stage.start(0);
            if let Some(held) = held {
                assert_answered(held, "/held");
                until("it to be over", || (stage.sandbox.engine.open_flights().unwrap() == 0).then_some(()));
            }
            passes(&mut stage, &[0, 1], 0, &format!("/after/{turn}"));
        }
    });
}

/// It has the connections that begin from then on. One that has gone by already stays with those it is at.
#[test]
fn a_product_comes_while_a_flow_lives() {
    netns::alone(|| {
        let mut stage = Stage::new();
        stage.add(Haproxy, SockName::Own);
        let held = begin(&mut stage, &[1, 0]);
        stage.add(Nginx, SockName::Destination);
        assert_eq!(decisions(&mut stage).len(), 0);
        assert_answered(held, "/held");
        assert_eq!(decisions(&mut stage).len(), 0, "it has stayed where it was");
        until("it to be over", || (stage.sandbox.engine.open_flights().unwrap() == 0).then_some(()));
        passes(&mut stage, &[0, 1], 0, "/fresh");
        stage.rank(&[1, 0]);
        passes(&mut stage, &[1, 0], 0, "/turned");
    });
}

/// A connection of an application's that goes through these handles to the IPv4 origin, and asks nothing yet.
fn begin(stage: &mut Stage, through: &[u32]) -> TcpStream {
    let destination = stage.http[0].address;
    decisions(stage);
    let held = stage.sandbox.in_app(|| connect(destination)).expect("connect");
    let mut told = Vec::new();
    until("the connection to arrive", || {
        told.extend(decisions(stage));
        (told.len() == through.len()).then_some(())
    });
    assert_eq!(told.iter().map(|event| event.handle).collect::<Vec<_>>(), through);
    let verdicts = [VERDICT_REDIRECT, VERDICT_PASS];
    assert_eq!(told.iter().map(|event| event.verdict).collect::<Vec<_>>(), verdicts[..through.len()]);
    held
}

fn assert_answered(mut held: TcpStream, path: &str) {
    write!(held, "GET {path} HTTP/1.1\r\nHost: origin\r\n\r\n").expect("write");
    let mut answer = String::new();
    held.read_to_string(&mut answer).expect("read");
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with(path), "{answer}");
}

/// curl's own exit code.
const CURL_COULD_NOT_CONNECT: i32 = 7;
