//! Windows services among Linux services.

use carnet_e2e::netns;

use crate::service::Service::{C, Python, Rust, Windows};
use crate::service::{Library, Service, Services};

#[test]
fn after_a_linux_service() {
    carried_through(&[C, Windows]);
}

#[test]
fn before_a_linux_service() {
    carried_through(&[Windows, Python]);
}

#[test]
fn between_linux_services() {
    carried_through(&[Rust, Windows, C]);
}

#[test]
fn two_windows_services_each_with_its_own_wine() {
    carried_through(&[Windows, Windows]);
}

#[test]
fn windows_services_at_both_ends_and_a_linux_service_between() {
    carried_through(&[Windows, Rust, Windows]);
}

fn carried_through(order: &[Service]) {
    let services = Services::build(Library::Shim);
    let chain = services.chain(order);
    netns::alone(|| chain.carries_payload_and_half_close(12, 1 << 18));
}
