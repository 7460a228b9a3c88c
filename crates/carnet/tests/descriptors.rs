//! Alone in its process: it uses up all descriptors.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::{fs::File, net::TcpListener};

use carnet::winsock::{Code, Operation, Request, WSA_NOT_ENOUGH_MEMORY, WSAEOPNOTSUPP, ioctl};

/// A service at its limit of descriptors still learns of each connection that it has accepted.
#[test]
fn what_is_asked_at_once_needs_no_descriptor() {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    lower_the_limit(64);
    let held: Vec<File> = std::iter::from_fn(|| File::open("/dev/null").ok()).collect();
    assert!(held.len() < 64);

    assert_eq!(ioctl(&socket, Code::QueryRecords, &[], &mut [0; 640]).unwrap_err().number(), WSAEOPNOTSUPP);
    let refused = Operation::begin(&socket, Request::query_records(640)).unwrap_err();
    assert_eq!((refused.result.unwrap_err().number(), refused.buffer.len()), (WSA_NOT_ENOUGH_MEMORY, 640));

    drop(held);
    let outcome = Operation::begin(&socket, Request::query_records(640)).unwrap().wait();
    assert_eq!(outcome.result.unwrap_err().number(), WSAEOPNOTSUPP);
}

fn lower_the_limit(descriptors: u64) {
    let limit = rustix::process::Rlimit { current: Some(descriptors), maximum: Some(descriptors) };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, limit).unwrap();
}
