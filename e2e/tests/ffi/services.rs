//! The services on the library, as `carnet run` starts them: alone, and in one chain with others.

use carnet_e2e::carried::{Carrier, Chain, who_goes_where};
use carnet_e2e::flow_log::Flow;
use carnet_e2e::netns;

use crate::built::{c_service, cpp_service, root, winsock_service};

use self::Service::{C, Cpp, Inspect, Python, Winsock};

#[test]
fn c() {
    carries_on(&[C]);
}

#[test]
fn cpp() {
    carries_on(&[Cpp]);
}

#[test]
fn winsock() {
    carries_on(&[Winsock("sampler plain")]);
}

#[test]
fn in_one_chain_with_the_others() {
    carries_on(&[C, Python, Winsock("envoy plain"), Cpp]);
    carries_on(&[Cpp, Inspect, Winsock("sampler plain"), C]);
}

/// In each way in which the end of an overlapped operation can be told.
#[test]
fn a_chain_of_overlapped_ones() {
    carries_on(&[Winsock("envoy event"), Winsock("sampler routine"), Winsock("envoy port")]);
    carries_on(&[Winsock("sampler event"), Winsock("envoy routine"), Winsock("sampler port")]);
}

#[derive(Clone, Copy, Debug)]
enum Service {
    C,
    Cpp,
    /// The order of its calls, and how their end is told.
    Winsock(&'static str),
    Python,
    Inspect,
}

impl Service {
    fn carrier(self) -> Carrier {
        match self {
            C => Carrier {
                name: "c-library",
                through: format!("'{}' {{port}}", c_service().display()),
                line: who_goes_where,
            },
            Cpp => Carrier {
                name: "cpp-library",
                through: format!("'{}' {{port}}", cpp_service().display()),
                line: who_goes_where,
            },
            Winsock(how) => Carrier {
                name: "winsock",
                through: format!("'{}' {{port}} {how}", winsock_service().display()),
                line: records_and_context,
            },
            Python => Carrier {
                name: "python3",
                through: format!("python3 '{}' {{port}}", root().join("examples/python/service.py").display()),
                line: who_goes_where,
            },
            Inspect => Carrier { name: "inspect", through: "inspect".into(), line: |_flow, _place| None },
        }
    }
}

/// `carnet run` gives no context.
fn records_and_context(flow: &Flow, _place: usize) -> Option<String> {
    Some(format!("{} records 528 context 0", flow.destination()))
}

fn carries_on(services: &[Service]) {
    let chain = Chain::of(services.iter().map(|service| service.carrier()));
    netns::alone(|| {
        chain.carries_payload_and_half_close(8, 1 << 18);
        chain.passes_a_refusal_on();
    });
}
