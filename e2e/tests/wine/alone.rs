//! A Windows service alone.

use carnet_e2e::netns;

use crate::service::Service::Windows;
use crate::service::{Library, Services};

#[test]
fn a_windows_service_carries_records_both_ways_and_half_by_half() {
    let services = Services::build(Library::Shim);
    let chain = services.chain(&[Windows]);
    netns::alone(|| chain.carries_payload_and_half_close(4, 4 << 20));
}

#[test]
fn a_windows_service_carries_hundreds_of_connections_at_once() {
    let services = Services::build(Library::Shim);
    let chain = services.chain(&[Windows]);
    netns::alone(|| chain.carries_payload_and_half_close(150, 1 << 14));
}

#[test]
fn a_refusal_reaches_the_client_as_a_reset() {
    let services = Services::build(Library::Shim);
    let chain = services.chain(&[Windows]);
    netns::alone(|| chain.passes_a_refusal_on());
}
