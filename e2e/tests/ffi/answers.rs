//! What C is told of a connection is what Rust is told.

use std::io::Read;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::Stdio;
use std::thread;

use carnet::Redirect;
use carnet_e2e::Sandbox;
use carnet_e2e::programs::{Scratch, Started};
use carnet_e2e::sockets::{accept, listen};
use carnet_policy::{Action, Service as Kind};

use crate::built::{Language, Link, build, library_path};

#[test]
fn by_ipv4_with_a_context() {
    are_the_same("127.0.0.1:0", &[0, 1, 0xfe, 0xff]);
}

#[test]
fn by_ipv6_without_a_context() {
    are_the_same("[::1]:0", &[]);
}

fn are_the_same(at: &str, context: &[u8]) {
    let scratch = Scratch::new();
    let program = scratch.file("answers");
    build(Language::C, Link::Shared, &Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/ffi/answers.c"), &program);

    let mut sandbox = Sandbox::new();
    let service = sandbox.service(Kind::Aware);
    sandbox.policy.providers[0].filters[0].action = Action::Redirect { context: context.to_vec() };
    sandbox.apply();
    let server = listen(at);
    let (_client, accepted) = sandbox.arrive(&service, server.local_addr().unwrap());
    let expected = in_rust(&sandbox, &accepted, context);

    let mut command = sandbox.service_command(0, program.to_str().unwrap());
    command.env("LD_LIBRARY_PATH", library_path()).stdout(Stdio::piped());
    let mut process = Started::by(command.stdin(OwnedFd::from(accepted)));
    let mut output = process.stdout.take().unwrap();
    let said = thread::spawn(move || std::io::read_to_string(&mut output).unwrap());
    // In the meantime: what it dials arrives.
    let mut received = String::new();
    accept(&server).read_to_string(&mut received).unwrap();
    process.ends_well();
    assert_eq!(said.join().unwrap(), expected);
    assert_eq!(received, "from C");
}

/// The program's output, from the library's answers.
fn in_rust(sandbox: &Sandbox, accepted: &std::net::TcpStream, context: &[u8]) -> String {
    let redirect = Redirect::of(accepted);
    let flow = redirect.flow().unwrap();
    let origin = flow.origin();
    let address = |what: &str, address: SocketAddr| format!("{what} {} {}\n", address.ip(), address.port());
    let mut said = format!("id {:032x}\n", flow.id());
    said += &address("destination", flow.destination());
    said += &format!("destination_text {}\n", flow.destination());
    said += &address("origin_destination", origin.destination);
    said += &origin.source.map_or("origin_source none 0\n".to_owned(), |source| address("origin_source", source));
    said += &format!(
        "process {} {} {} {} {}\n",
        origin.pid,
        origin.start_time.as_nanos(),
        origin.uid,
        origin.gid,
        origin.comm
    );
    // The application is this test.
    let path = origin.executable_path().unwrap();
    said += &format!("executable {} {} {}\n", origin.exe.device, origin.exe.inode, path.display());
    said += &format!(
        "socket {} {} {} {} {} 0 0\n",
        origin.cgroup_id,
        origin.netns_cookie,
        if flow.destination().is_ipv4() { 4 } else { 6 },
        origin.bound_interface.unwrap_or(0),
        origin.time.as_nanos()
    );
    for hop in flow.chain() {
        said += &format!("hop {} {} {}\n", hop.handle, hop.filter.unwrap_or(0), hop.time.as_nanos());
    }
    // As the service, for that is who the program is.
    let state = sandbox.in_service(0, || redirect.state()).unwrap();
    assert_eq!(state, carnet::State::RedirectedBySelf);
    said += &format!("state {}\n", state as u32);
    assert_eq!(redirect.context().unwrap().unwrap_or_default(), context);
    said += &format!("context {}\n", context.iter().map(|byte| format!("{byte:02x}")).collect::<String>());
    said += &address("original_destination", redirect.original_destination().unwrap());
    let size = redirect.records().unwrap().as_bytes().len();
    said + &format!(
        "needed {size}\nrecords {size}\nset already-connected\nchanged forged\nshort malformed\ndialled 6\n"
    )
}
