//! Socket options where somebody else's programs are on the same hooks.

use std::os::fd::AsFd;

use carnet::Redirect;
use carnet_abi::{CARNET_RECORDS, CARNET_STATE, SOL_CARNET};
use carnet_e2e::raw;
use carnet_e2e::sockets::{connect, listen};
use libc::{EMSGSIZE, ENODATA, IPPROTO_TCP, SO_RCVBUF, SO_TYPE, SOL_SOCKET, TCP_INFO, TCP_MAXSEG};

use crate::foreign::{LEVEL, Place, Seen, VALUE, beside_services};
use crate::walk::assert_arrives;

/// Their options are theirs, Carnet's are Carnet's, and the kernel's are the kernel's, whoever is asked first.
#[test]
fn each_program_answers_its_own_options() {
    for place in Place::ALL {
        let server = listen("127.0.0.1:0");
        let destination = server.local_addr().unwrap();
        let (foreign, party) = beside_services(place, &["own_getsockopt", "own_setsockopt"]);
        let client = party.sandbox.in_app(|| connect(destination)).expect("connect");
        let hops = party.walk(destination, party.sandbox.app_cgroup().id());
        let accepted = &hops[0].0;

        let mut value = [0; 8];
        assert_eq!(raw::get(accepted, LEVEL, 1, &mut value), Ok(4), "{place:?}");
        assert_eq!(value[..4], VALUE.to_ne_bytes());
        assert_eq!(raw::get(accepted, LEVEL, 1, &mut [0; 3]), Err(EMSGSIZE));
        assert_eq!(raw::set(accepted, LEVEL, 1, &[1; 4]), Ok(()));
        // An option of Carnet's number at another level is not Carnet's.
        assert_eq!(raw::get(accepted, LEVEL, CARNET_RECORDS, &mut value), Ok(4));

        let redirect = Redirect::of(accepted);
        let blob = redirect.records().expect("records");
        assert_eq!(blob.as_bytes().len(), 528);
        assert_eq!(redirect.flow().expect("flow").destination(), destination);
        assert_eq!(redirect.original_destination().expect("SO_ORIGINAL_DST"), destination);
        assert_eq!(raw::get(accepted, SOL_CARNET, CARNET_RECORDS, &mut [0; 527]), Err(EMSGSIZE), "{place:?}");
        assert_eq!(raw::get(&hops[0].1, SOL_CARNET, CARNET_RECORDS, &mut [0; 640]), Err(ENODATA), "{place:?}");
        assert_eq!(raw::get(accepted, SOL_CARNET, CARNET_STATE, &mut [0; 4096]), Ok(4));
        kernels_own_options(accepted);
        assert!(foreign.seen(Seen::Gets) > 0 && foreign.seen(Seen::Sets) > 0, "{place:?}");
        party.assert_idle();
        assert_arrives(client, hops, &server);
    }
}

fn kernels_own_options(socket: &impl AsFd) {
    let alone = listen("127.0.0.1:0");
    for (level, name, size) in [
        (SOL_SOCKET, SO_TYPE, 4),
        (SOL_SOCKET, SO_RCVBUF, 4),
        (IPPROTO_TCP, TCP_MAXSEG, 8),
        (IPPROTO_TCP, TCP_INFO, 256),
    ] {
        let (mut here, mut there) = (vec![0; size], vec![0; size]);
        let length = raw::get(socket, level, name, &mut here);
        assert_eq!(length, raw::get(&alone, level, name, &mut there), "{level} {name}");
        assert!(here[..length.unwrap()].iter().any(|&byte| byte != 0), "{level} {name}");
    }
    assert_eq!(raw::set(socket, SOL_SOCKET, SO_RCVBUF, &8192_i32.to_ne_bytes()), Ok(()));
}
