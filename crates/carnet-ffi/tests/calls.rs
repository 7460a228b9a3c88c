//! The functions as C calls them: what they answer without an engine, to arguments that cannot be, and of a flow.
#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]
#![cfg(target_os = "linux")]

use std::{
    ffi::{CStr, c_char, c_int, c_void},
    fs::File,
    net::{TcpListener, TcpStream},
    os::fd::AsRawFd,
    ptr::{null, null_mut},
};

use carnet_abi::{ABI_VERSION, Address, Flow, Hop, MAX_HOPS, ORIGIN_AMBIGUOUS, ORIGIN_INFERRED, Origin};
use carnet_ffi::*;
use zerocopy::{FromZeros as _, IntoBytes as _};

/// Each function that asks, by its name, on this socket: the kind of its error, and the object.
fn ask(socket: c_int) -> Vec<(&'static str, i32, *mut carnet_error_t)> {
    let mut buffer = [0u8; CARNET_CONTEXT_MAX];
    let records = records();
    let (bytes, mut state) = (buffer.as_mut_ptr().cast::<c_void>(), 0);
    let [mut size, mut flow] = [buffer.len(), 0];
    let flow: *mut *mut carnet_flow_t = (&raw mut flow).cast();
    let mut asked = Vec::new();
    let mut one = |name, call: &mut dyn FnMut(*mut *mut carnet_error_t) -> i32| {
        let mut error = null_mut();
        let answer = call(&raw mut error);
        asked.push((name, answer, error));
    };
    // SAFETY: all pointers are to variables that outlive the calls, with their sizes.
    unsafe {
        one("records_query", &mut |error| carnet_records_query(socket, bytes, &raw mut size, error));
        one("records_set", &mut |error| carnet_records_set(socket, records.as_ptr().cast(), records.len(), error));
        one("context_query", &mut |error| carnet_context_query(socket, bytes, &raw mut size, error));
        one("state_query", &mut |error| carnet_state_query(socket, &raw mut state, error));
        one("flow_query", &mut |error| carnet_flow_query(socket, flow, error));
        one("original_destination", &mut |error| carnet_original_destination(socket, bytes, &raw mut size, error));
        // A descriptor is no kind, so the error's is the answer.
        one("dial", &mut |error| {
            assert_eq!(carnet_dial(socket, error), -1);
            carnet_error_kind(*error)
        });
        one("dial_timeout", &mut |error| {
            assert_eq!(carnet_dial_timeout(socket, 1000, error), -1);
            carnet_error_kind(*error)
        });
    }
    asked
}

#[test]
fn where_no_engine_answers_every_function_says_so() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (accepted, _) = listener.accept().unwrap();
    for (name, kind, error) in ask(accepted.as_raw_fd()) {
        let (told, os_error, message) = told(error);
        if name == "original_destination" && os_error == libc::ENOENT {
            continue; // netfilter answers, where its modules are loaded
        }
        assert_eq!((kind, told), (CARNET_ERROR_NO_ENGINE, CARNET_ERROR_NO_ENGINE), "{name}: {message}");
        assert!([libc::EOPNOTSUPP, libc::ENOPROTOOPT].contains(&os_error), "{name}: {message}");
        assert!(message.contains("start the service in a cgroup which the engine covers"), "{name}: {message}");
    }
}

#[test]
fn what_is_no_socket_is_told() {
    let file = File::open("/dev/null").unwrap();
    for (name, kind, error) in ask(file.as_raw_fd()) {
        let (told, os_error, message) = told(error);
        assert_eq!((kind, told, os_error), (CARNET_ERROR_IO, CARNET_ERROR_IO, libc::ENOTSOCK), "{name}: {message}");
    }
    for number in [-1, c_int::MIN] {
        for (name, kind, error) in ask(number) {
            let (told, os_error, message) = told(error);
            assert_eq!((kind, told, os_error), (CARNET_ERROR_ARGUMENT, CARNET_ERROR_ARGUMENT, 0), "{name}: {message}");
            assert_eq!(message, format!("{number} is no socket; pass one that is open"), "{name}");
        }
    }
}

#[test]
fn a_null_is_an_error_and_no_crash() {
    let flow = flow();
    let (mut size, mut error) = (10, null_mut());
    let bad = |answer: i32, error: &mut *mut carnet_error_t| {
        let (kind, _, message) = told(std::mem::replace(error, null_mut()));
        assert_eq!((answer, kind), (CARNET_ERROR_ARGUMENT, CARNET_ERROR_ARGUMENT), "{message}");
        assert!(message.contains("NULL"), "{message}");
    };
    // SAFETY: what is not null is a variable that outlives the call.
    unsafe {
        let (size, told) = (&raw mut size, &raw mut error);
        bad(carnet_records_query(0, null_mut(), size, told), &mut *told);
        bad(carnet_records_query(0, null_mut(), null_mut(), told), &mut *told);
        bad(carnet_records_set(0, null(), 528, told), &mut *told);
        bad(carnet_context_query(0, null_mut(), size, told), &mut *told);
        bad(carnet_context_query(0, null_mut(), null_mut(), told), &mut *told);
        bad(carnet_state_query(0, null_mut(), told), &mut *told);
        bad(carnet_original_destination(0, null_mut(), size, told), &mut *told);
        bad(carnet_flow_query(0, null_mut(), told), &mut *told);
        for function in [carnet_flow_destination, carnet_flow_origin_destination, carnet_flow_origin_source] {
            bad(function(null(), null_mut(), size, told), &mut *told);
            bad(function(&raw const flow, null_mut(), size, told), &mut *told);
            bad(function(&raw const flow, null_mut(), null_mut(), told), &mut *told);
        }
        bad(carnet_flow_executable_path(null(), null_mut(), size, told), &mut *told);
        bad(carnet_flow_executable_path(&raw const flow, null_mut(), size, told), &mut *told);
        assert_eq!(*size, 10, "what could not be answered changes nothing");

        // Nobody need take the object.
        assert_eq!(carnet_records_query(-1, null_mut(), null_mut(), null_mut()), CARNET_ERROR_ARGUMENT);
        assert_eq!(carnet_dial(-1, null_mut()), -1);
        assert_eq!(carnet_dial_timeout(0, 0, told), -1);
        assert_eq!(carnet_error_kind(*told), CARNET_ERROR_ARGUMENT);
        carnet_error_free(*told);

        for number in [carnet_flow_pid, carnet_flow_uid, carnet_flow_gid, carnet_flow_depth, carnet_flow_family] {
            assert_eq!(number(null()), 0);
        }
        assert!(!carnet_flow_is_inferred(null()) && !carnet_flow_is_ambiguous(null()));
        assert_eq!(text(carnet_flow_comm(null())) + &text(carnet_flow_destination_text(null())), "");
        assert_eq!((carnet_error_kind(null()), carnet_error_os_error(null())), (CARNET_OK, 0));
        assert_eq!(text(carnet_error_message(null())), "no error");
        carnet_flow_free(null_mut());
        carnet_error_free(null_mut());
    }
}

#[test]
fn a_flow_says_what_the_engine_said() {
    let flow = flow();
    let flow = &raw const flow;
    // SAFETY: it is a flow.
    unsafe {
        assert_eq!((carnet_flow_id_low(flow), carnet_flow_id_high(flow)), (1, 2));
        assert_eq!(text(carnet_flow_destination_text(flow)), "192.0.2.7:80");
        assert_eq!(text(carnet_flow_comm(flow)), "curl");
        assert_eq!((carnet_flow_pid(flow), carnet_flow_uid(flow), carnet_flow_gid(flow)), (3, 4, 5));
        assert_eq!((carnet_flow_time(flow), carnet_flow_start_time(flow)), (6, 7));
        assert_eq!((carnet_flow_executable_device(flow), carnet_flow_executable_inode(flow)), (8, 9));
        assert_eq!((carnet_flow_cgroup_id(flow), carnet_flow_netns_cookie(flow)), (10, 11));
        assert_eq!((carnet_flow_bound_interface(flow), carnet_flow_family(flow)), (12, 6));
        for (flags, expected) in [(0, [false; 2]), (ORIGIN_INFERRED, [true, false]), (ORIGIN_AMBIGUOUS, [false, true])]
        {
            let flow = flow_with(flags);
            let flow = &raw const flow;
            assert_eq!([carnet_flow_is_inferred(flow), carnet_flow_is_ambiguous(flow)], expected);
        }
        assert_eq!(carnet_flow_depth(flow), 2);
        let hops = [0, 1, 2, u32::MAX].map(|index| {
            [
                carnet_flow_hop_handle(flow, index),
                carnet_flow_hop_filter(flow, index),
                carnet_flow_hop_time(flow, index) as u32,
            ]
        });
        assert_eq!(hops, [[13, 14, 15], [16, 0, 17], [0; 3], [0; 3]]);
        // The process with pid 3 is not the flow's.
        let mut size = 0;
        assert_eq!(carnet_flow_executable_path(flow, null_mut(), &raw mut size, null_mut()), CARNET_OK);
        assert_eq!(size, 0);
    }
}

#[test]
fn an_address_is_written_whole_or_its_size_is_told() {
    let flow = flow();
    let v4 = size_of::<libc::sockaddr_in>();
    let v6 = size_of::<libc::sockaddr_in6>();
    type Address = unsafe extern "C" fn(*const carnet_flow_t, *mut c_void, *mut usize, *mut *mut carnet_error_t) -> i32;
    for (function, needed) in
        [(carnet_flow_destination as Address, v4), (carnet_flow_origin_destination, v6), (carnet_flow_origin_source, 0)]
    {
        for capacity in [0, 1, v4 - 1, v4, v6 - 1, v6, 128] {
            let mut buffer = [0xa5u8; 128];
            let (mut size, mut error) = (capacity, null_mut());
            let bytes = if capacity == 0 { null_mut() } else { buffer.as_mut_ptr().cast() };
            // SAFETY: the buffer has so many bytes.
            let answer = unsafe { function(&raw const flow, bytes, &raw mut size, &raw mut error) };
            assert_eq!(size, needed);
            let written = if needed <= capacity { needed } else { 0 };
            assert!(buffer[written..].iter().all(|&byte| byte == 0xa5), "{capacity}: no more than the address");
            if needed > capacity {
                let (kind, _, message) = told(error);
                assert_eq!((answer, kind), (CARNET_ERROR_BUFFER_TOO_SMALL, CARNET_ERROR_BUFFER_TOO_SMALL));
                assert!(message.contains(&format!("{needed} are needed")), "{message}");
            } else {
                assert_eq!((answer, error), (CARNET_OK, null_mut()));
                let family = u16::from_ne_bytes([buffer[0], buffer[1]]);
                let port = u16::from_be_bytes([buffer[2], buffer[3]]);
                match needed {
                    0 => {}
                    _ if needed == v4 => {
                        assert_eq!((c_int::from(family), port, &buffer[4..8]), (libc::AF_INET, 80, &[192, 0, 2, 7][..]))
                    }
                    _ => assert_eq!((c_int::from(family), port, buffer[23]), (libc::AF_INET6, 443, 1)),
                }
            }
        }
    }
}

/// Programs have these numbers compiled in.
#[test]
fn numbers_stay_and_have_names() {
    let numbers = [
        (CARNET_OK, 0, "ok"),
        (CARNET_ERROR_OTHER, 1, "other"),
        (CARNET_ERROR_IO, 10, "io"),
        (CARNET_ERROR_NOT_REDIRECTED, 20, "not-redirected"),
        (CARNET_ERROR_CONTEXT_LOST, 30, "context-lost"),
        (CARNET_ERROR_NO_ENGINE, 40, "no-engine"),
        (CARNET_ERROR_NOT_TCP, 50, "not-tcp"),
        (CARNET_ERROR_MALFORMED, 60, "malformed"),
        (CARNET_ERROR_FORGED, 70, "forged"),
        (CARNET_ERROR_STALE, 80, "stale"),
        (CARNET_ERROR_NOT_OWNER, 90, "not-owner"),
        (CARNET_ERROR_ALREADY_CONNECTED, 100, "already-connected"),
        (CARNET_ERROR_ARGUMENT, 200, "argument"),
        (CARNET_ERROR_BUFFER_TOO_SMALL, 210, "buffer-too-small"),
        (CARNET_ERROR_PANIC, 220, "panic"),
        (i32::MIN, i32::MIN, "unknown"),
    ];
    for (kind, number, name) in numbers {
        assert_eq!((kind, text(carnet_error_kind_name(kind))), (number, name.to_owned()));
    }
    let states = [carnet::State::NotRedirected, carnet::State::RedirectedBySelf, carnet::State::RedirectedByOther];
    let ours = [CARNET_STATE_NOT_REDIRECTED, CARNET_STATE_REDIRECTED_BY_SELF, CARNET_STATE_REDIRECTED_BY_OTHER];
    assert_eq!(states.map(|state| state as u32), ours);
    assert_eq!(carnet::State::PreviouslyRedirectedBySelf as u32, CARNET_STATE_PREVIOUSLY_REDIRECTED_BY_SELF);
    assert_eq!(text(carnet_version()), env!("CARGO_PKG_VERSION"));
}

#[test]
fn threads_may_share_objects() {
    fn shared<T: Send + Sync>() {}
    shared::<carnet_flow_t>();
    shared::<carnet_error_t>();
}

/// Kind, number and text of an error, which is freed.
fn told(error: *mut carnet_error_t) -> (i32, i32, String) {
    assert!(!error.is_null(), "there is an object");
    // SAFETY: it comes from the library, and nobody uses it after this.
    unsafe {
        let told = (carnet_error_kind(error), carnet_error_os_error(error), text(carnet_error_message(error)));
        carnet_error_free(error);
        told
    }
}

fn text(text: *const c_char) -> String {
    // SAFETY: all texts of the library end in NUL.
    unsafe { CStr::from_ptr(text) }.to_str().unwrap().to_owned()
}

/// Bytes whose size could be that of records.
fn records() -> Vec<u8> {
    let mut records = vec![0; 528];
    records[..2].copy_from_slice(&ABI_VERSION.to_ne_bytes());
    records[2..4].copy_from_slice(&528u16.to_ne_bytes());
    records
}

fn flow() -> carnet_flow_t {
    flow_with(ORIGIN_INFERRED | ORIGIN_AMBIGUOUS)
}

fn flow_with(flags: u16) -> carnet_flow_t {
    let address = |text: &str| Address::from(text.parse::<std::net::SocketAddr>().unwrap());
    let mut origin = Origin::new_zeroed();
    origin.remote = address("[2001:db8::1]:443");
    (origin.pid, origin.uid, origin.gid, origin.time, origin.start_time) = (3, 4, 5, 6, 7);
    (origin.exe_dev, origin.exe_ino, origin.cgroup_id, origin.netns_cookie, origin.ifindex) = (8, 9, 10, 11, 12);
    origin.family = libc::AF_INET6 as u8;
    origin.flags = flags;
    origin.comm[..4].copy_from_slice(b"curl");
    let mut chain = [Hop::new_zeroed(); MAX_HOPS];
    (chain[0].handle, chain[0].filter, chain[0].time) = (13, 14, 15);
    (chain[1].handle, chain[1].filter, chain[1].time) = (16, 0, 17);
    let mut flow = Flow::new_zeroed();
    (flow.version, flow.size, flow.depth, flow.flow) = (ABI_VERSION, size_of::<Flow>() as u16, 2, [1, 2]);
    (flow.origin, flow.remote, flow.chain) = (origin, address("192.0.2.7:80"), chain);
    carnet_flow_t::from_bytes(flow.as_bytes()).unwrap()
}
