//! A Windows service alone.

use std::net::SocketAddr;

use carnet_e2e::netns;
use carnet_e2e::programs::CURL_GOT_NOTHING;

use crate::service::Service::Windows;
use crate::service::{Library, Services};
use crate::through::{payload_and_half_close, run};

#[test]
fn a_windows_service_carries_records_both_ways_and_half_by_half() {
    let services = Services::build(Library::Shim);
    netns::alone(|| payload_and_half_close(&services, &[Windows], 4, 4 << 20));
}

#[test]
fn a_windows_service_carries_hundreds_of_connections_at_once() {
    let services = Services::build(Library::Shim);
    netns::alone(|| payload_and_half_close(&services, &[Windows], 150, 1 << 14));
}

/// The client is told by a reset, the user by the service's own words, and the log has the cause.
#[test]
fn a_refusal_reaches_the_client_as_a_reset() {
    let services = Services::build(Library::Shim);
    netns::alone(|| {
        // Nobody listens on it in a network namespace of the test's own.
        let closed: SocketAddr = ([127, 0, 0, 1], 9).into();
        let curl = ["curl", "-s", "--max-time", "10", &format!("http://{closed}/")].map(str::to_owned);
        let (ended, log) = run(&services, &[Windows], &curl);
        assert!(CURL_GOT_NOTHING.contains(&ended.code), "{ended:?}");
        let [flow] = &log.flows[..] else { panic!("one flow: {log:#?}") };
        assert_eq!((flow.destination(), flow.text("ended"), flow.at()), (closed, Some("failed"), Some("destination")));
        assert_eq!(flow.text("error"), Some("ECONNREFUSED"));
        assert_eq!(flow.chain(), [("windows-service", false)]);
        // WSAECONNREFUSED.
        let said = |line: &str| line.starts_with("[windows-service] service: ") && line.contains("10061");
        assert!(ended.errors.lines().any(said), "the service says why: {}", ended.errors);
    });
}
