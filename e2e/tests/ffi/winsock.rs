//! Winsock's calls from C, in the orders of those who use them, under valgrind: the buffers are the callers' own, and
//! an operation writes into them from another thread.

use std::fs::{self, File};
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::path::Path;

use carnet_e2e::Sandbox;
use carnet_e2e::netns;
use carnet_e2e::programs::{Scratch, Started, program, succeed};
use carnet_e2e::sockets::{listen, until};
use carnet_policy::{Action, Service as Kind};

use crate::built::{Language, Link, build, installed, root, winsock_service};
use crate::valgrind::{self, UnderValgrind, assert_clean, assert_reset};

/// Of each family.
const COUNT: usize = 3;

/// Each call by Windows' name, from C and from C++, without an engine.
#[test]
fn every_call_has_windows_name_and_windows_answer() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/ffi/winsock_calls.c");
    let scratch = Scratch::new();
    // The C++ compiler takes a .c file for C++.
    for language in [Language::C, Language::Cpp] {
        let output = scratch.file("calls");
        build(language, Link::Static, &source, &output);
        let (ended, report) = valgrind::run(&output);
        assert_eq!((ended.code, &ended.output[..]), (0, "all of them\n"), "{language:?}\n{}\n{report}", ended.errors);
        assert_clean(&report);
    }
    windows_builds(&source);
}

/// One source for both systems: the same warnings, Windows' own headers, and none of ours but one.
#[test]
fn the_service_builds_for_windows() {
    windows_builds(&root().join("examples/winsock/service.c"));
}

/// In C `main` may end before other threads do. The process's id is then that of a thread which has no memory any more.
#[test]
fn the_calls_answer_when_the_main_thread_has_ended() {
    let scratch = Scratch::new();
    let program = scratch.file("main_has_ended");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/ffi/main_has_ended.c");
    build(Language::C, Link::Static, &source, &program);

    let mut sandbox = Sandbox::new();
    let service = sandbox.service(Kind::Aware);
    sandbox.policy.providers[0].filters[0].action = Action::Redirect { context: b"context".to_vec() };
    sandbox.apply();
    let server = listen("127.0.0.1:0");
    let (_client, accepted) = sandbox.arrive(&service, server.local_addr().unwrap());
    let mut command = sandbox.service_command(0, program.to_str().unwrap());
    let said = scratch.file("said");
    command.stdin(OwnedFd::from(accepted)).stdout(File::create(&said).unwrap());
    Started::by(&mut command).ends_well();
    assert_eq!(fs::read_to_string(said).unwrap(), "plain\nevent\nroutine\nport\nwrong\n");
}

fn windows_builds(source: &Path) {
    let scratch = Scratch::new();
    let (include, output) = (scratch.file("include"), scratch.file("program.exe"));
    fs::create_dir(&include).unwrap();
    fs::copy(installed().join("opt/carnet/include/carnet_winsock.h"), include.join("carnet_winsock.h")).unwrap();
    for standard in ["-std=c11", "-std=gnu17"] {
        let mut command = program("x86_64-w64-mingw32-gcc");
        command.args([standard, "-Wall", "-Wextra", "-Werror", "-pedantic", "-I"]).arg(&include).arg("-o").arg(&output);
        succeed(command.arg(source).arg("-lws2_32"));
        assert!(fs::read(&output).unwrap().starts_with(b"MZ"), "a Windows program");
    }
}

/// QUERY_RECORDS with 8192 bytes, QUERY_CONTEXT with 256, SET before bind, connect; the filter gives a context.
#[test]
fn wfpsamplers_order_with_a_context() {
    carries_on("sampler", "plain", 256);
}

/// ... and where it gives none, FWP_E_NOT_FOUND is no failure.
#[test]
fn wfpsamplers_order_without_a_context() {
    carries_on("sampler", "plain", 0);
}

/// QUERY_RECORDS with 2048 bytes on accept, SET before bind, connect.
#[test]
fn envoys_order() {
    carries_on("envoy", "plain", 0);
}

#[test]
fn overlapped_with_an_event() {
    carries_on("sampler", "event", 17);
}

#[test]
fn overlapped_with_a_completion_routine() {
    carries_on("sampler", "routine", 17);
}

#[test]
fn overlapped_with_a_completion_port() {
    carries_on("sampler", "port", 17);
}

/// A context that does not fit is an error with a number of its own (122), and the connection is closed.
#[test]
fn a_context_that_is_too_large_for_wfpsampler_is_told() {
    netns::alone(|| {
        let under = UnderValgrind::start(&winsock_service(), &["sampler", "plain"], vec![b'c'; 257]);
        let client = under.sandbox.in_app(|| TcpStream::connect("127.0.0.1:9")).unwrap();
        under.said("the context: error 122");
        assert_reset(&client);
    });
}

/// Envoy's way with a connection that has no record: it is closed.
#[test]
fn where_the_records_cannot_be_had_the_connection_is_closed() {
    netns::alone(|| {
        let under = UnderValgrind::start(&winsock_service(), &["envoy", "plain"], Vec::new());
        // From where the engine does not govern.
        let stranger = TcpStream::connect(under.service.addresses[0]).unwrap();
        under.said("the records: error 10022: it has no record");
        assert_reset(&stranger);
    });
}

/// All flows of one run, until the service ends by itself, and what valgrind has seen by then.
fn carries_on(order: &str, delivery: &str, context: usize) {
    netns::alone(|| {
        let count = COUNT.to_string();
        let mut under = UnderValgrind::start(&winsock_service(), &[order, delivery, &count], vec![b'c'; context]);
        let origins = under.flows(COUNT);
        assert!(under.end().success(), "{}", under.report());
        assert_clean(&under.report());

        let told = if order == "sampler" { context } else { 0 };
        for origin in origins {
            let line = format!("{origin} records 528 context {told}");
            let count = || under.output().lines().filter(|said| **said == line).count();
            until("a line for each flow", || (count() == COUNT).then_some(()));
        }
    });
}
