//! SET: which records blobs a socket takes. What is refused must leave the socket as it was.

use std::hash::Hasher;
use std::time::Duration;

use carnet::Redirect;
use carnet_abi::{CARNET_RECORDS, EVENT_SET, Key, Records, SOL_CARNET};
use carnet_e2e::sockets::{connect_on, until};
use carnet_e2e::{Scene, raw, set_records};
use carnet_engine::{Engine, Options};
use libbpf_rs::{MapCore, MapFlags};
use libc::{EACCES, EBADMSG, EFAULT, EINVAL, ELOOP, ESTALE};
use zerocopy::{FromBytes, IntoBytes};

#[test]
fn every_bit_counts() {
    let scene = Scene::new();
    let blob = scene.blob();
    let fresh = scene.socket();
    let carrying = scene.socket();
    scene.sandbox.in_service(0, || {
        assert_eq!(set_records(&carrying, &blob), Ok(()));
        for at in 0..blob.len() {
            for bit in 0..8 {
                let mut changed = blob.clone();
                changed[at] ^= 1 << bit;
                let expected = match at {
                    0..4 => EINVAL,  // version, size
                    8..16 => ESTALE, // engine
                    _ => EBADMSG,
                };
                assert_eq!(set_records(&fresh, &changed), Err(expected), "byte {at} bit {bit}");
                assert_eq!(set_records(&carrying, &changed), Err(expected), "byte {at} bit {bit}");
            }
        }
    });
    scene.assert_goes_on_as_nothing(fresh);
    scene.assert_goes_on(carrying, &Redirect::of(&scene.accepted).flow().unwrap());
}

#[test]
fn a_blob_has_one_size() {
    let scene = Scene::new();
    let blob = scene.blob();
    let socket = scene.socket();
    let mut long = blob.clone();
    long.resize(1 << 20, 0);
    scene.sandbox.in_service(0, || {
        for size in (0..=4097).chain([8192, 1 << 20]).filter(|size| *size != blob.len()) {
            assert_eq!(set_records(&socket, &long[..size]), Err(EINVAL), "{size} bytes");
        }
        assert_eq!(raw::set_at_null(&socket, SOL_CARNET, CARNET_RECORDS, 528), Err(EFAULT));
        assert_eq!(raw::set_at_null(&socket, SOL_CARNET, CARNET_RECORDS, 0), Err(EINVAL));
        assert_eq!(raw::set_with_length(&socket, SOL_CARNET, CARNET_RECORDS, &blob, -1), Err(EINVAL));
    });
    scene.assert_goes_on_as_nothing(socket);
}

/// Who can read the key can make any record: that is root, which could detach the programs as well. Here it shows what
/// is looked at besides the tag.
#[test]
fn a_right_tag_is_not_enough() {
    let scene = Scene::new();
    let good = Records::read_from_bytes(&scene.blob()).unwrap();
    let minute = 60_000_000_000;
    type Change<'a> = &'a dyn Fn(&mut Records);
    let cases: [(&str, Change<'_>, Result<(), i32>); 8] = [
        ("as it was", &|_| (), Ok(())),
        ("another flow", &|records| records.flow[0] += 1000, Ok(())),
        ("an older version", &|records| records.version = 0, Err(EINVAL)),
        ("a newer version", &|records| records.version += 1, Err(EINVAL)),
        ("a size of its own", &|records| records.size = 640, Err(EINVAL)),
        ("from the future", &|records| records.stamp += minute, Err(ESTALE)),
        ("from a minute ago", &|records| records.stamp = records.stamp.wrapping_sub(minute), Err(ESTALE)),
        ("without a hop", &|records| records.depth = 0, Err(EACCES)),
    ];
    for (what, change, expected) in cases {
        let mut records = good;
        change(&mut records);
        seal(&scene.sandbox.engine, &mut records);
        let socket = scene.socket();
        assert_eq!(scene.set(0, &socket, records.as_bytes()), expected, "{what}");
        match expected {
            Ok(()) => assert_eq!(scene.go_on(socket).id(), carnet_abi::flow_id(records.flow), "{what}"),
            Err(_) => scene.assert_goes_on_as_nothing(socket),
        }
    }
}

/// SET takes a record that has no room left; the redirect that would lengthen it is refused.
#[test]
fn the_seventeenth_hop() {
    let scene = Scene::new();
    let mut records = Records::read_from_bytes(&scene.blob()).unwrap();
    records.depth = 16;
    records.chain = [records.chain[0]; 16];
    seal(&scene.sandbox.engine, &mut records);
    let socket = scene.socket();
    assert_eq!(scene.set(0, &socket, records.as_bytes()), Ok(()));
    let refused = scene.sandbox.in_service(0, || connect_on(socket, &scene.destination().into()).unwrap_err());
    assert_eq!(refused, ELOOP);
}

#[test]
fn another_engines_blob() {
    let blob = Scene::new().blob();
    let scene = Scene::new();
    let socket = scene.socket();
    assert_eq!(scene.set(0, &socket, &blob), Err(ESTALE));
    scene.assert_goes_on_as_nothing(socket);
    drop(scene);

    // The same instance id, but another key: chance alone would have to do that.
    let with_id = || Scene::with(&Options { engine_id: Some(7), ..Options::default() });
    let blob = with_id().blob();
    let scene = with_id();
    let socket = scene.socket();
    assert_eq!(scene.set(0, &socket, &blob), Err(EBADMSG));
    scene.assert_goes_on_as_nothing(socket);
}

#[test]
fn a_blob_grows_stale_and_its_flow_does_not() {
    let scene = Scene::with(&Options { stamp_ttl: Duration::from_millis(200), ..Options::default() });
    let blob = until("a SET right after QUERY", || {
        let blob = scene.blob();
        scene.set(0, &scene.socket(), &blob).is_ok().then_some(blob)
    });
    let error = until("the blob to grow stale", || scene.set(0, &scene.socket(), &blob).err());
    assert_eq!(error, ESTALE);
    let fresh = until("a SET right after QUERY", || {
        let socket = scene.socket();
        scene.set(0, &socket, &scene.blob()).is_ok().then_some(socket)
    });
    // Once set it stays, however long connect() takes to come.
    let later = scene.blob();
    until("a later blob to grow stale", || scene.set(0, &scene.socket(), &later).err());
    scene.assert_goes_on(fresh, &Redirect::of(&scene.accepted).flow().unwrap());
}

#[test]
fn a_new_key_does_not_break_blobs_on_their_way() {
    let mut scene = Scene::new();
    let blob = scene.blob();
    for expected in [Ok(()), Err(EBADMSG), Err(EBADMSG)] {
        scene.sandbox.engine.rotate_key().unwrap();
        assert_eq!(scene.set(0, &scene.socket(), &blob), expected);
        // The flow itself is not bound to a key.
        assert_eq!(scene.set(0, &scene.socket(), &scene.blob()), Ok(()));
    }
}

#[test]
fn one_blob_is_good_for_many_sockets() {
    let scene = Scene::new();
    let blob = scene.blob();
    let flow = Redirect::of(&scene.accepted).flow().unwrap();
    for _ in 0..3 {
        let socket = scene.socket();
        assert_eq!(scene.set(0, &socket, &blob), Ok(()));
        scene.assert_goes_on(socket, &flow);
    }
}

#[test]
fn a_second_set_replaces_the_first() {
    let scene = Scene::new();
    let (_client, other) = scene.sandbox.arrive(&scene.first, scene.destination());
    let (first, second) = (Redirect::of(&scene.accepted), Redirect::of(&other));
    assert_ne!(first.flow().unwrap().id(), second.flow().unwrap().id());
    let socket = scene.socket();
    for records in [first, second, first, second] {
        assert_eq!(scene.set(0, &socket, records.records().unwrap().as_bytes()), Ok(()));
    }
    scene.assert_goes_on(socket, &second.flow().unwrap());
}

#[test]
fn every_set_is_an_event() {
    let mut scene = Scene::new();
    let blob = scene.blob();
    let mut changed = blob.clone();
    changed[527] ^= 1;
    let socket = scene.socket();
    scene.sandbox.events();
    assert_eq!(scene.set(0, &socket, &changed), Err(EBADMSG));
    assert_eq!(scene.set(0, &socket, &blob), Ok(()));
    let events = scene.sandbox.events_until(|event| event.kind == EVENT_SET && event.error == 0);
    let sets: Vec<_> = events.iter().filter(|event| event.kind == EVENT_SET).collect();
    let seen: Vec<_> = sets.iter().map(|event| (event.error, event.handle, event.record.depth, event.pid)).collect();
    assert_eq!(seen, [(EBADMSG, 0, 0, std::process::id()), (0, 1, 1, std::process::id())]);
    assert_eq!((sets[1].record.tag, sets[1].record.stamp), (0, 0), "an event is no blob");
}

/// Gives the record the tag that the engine would have given it.
fn seal(engine: &Engine, records: &mut Records) {
    let keys = engine.map_handle("carnet_keys").expect("the map of keys");
    let key = keys.lookup(&0_u32.to_ne_bytes(), MapFlags::ANY).expect("readable").expect("there");
    let key = Key::read_from_bytes(&key).expect("a key");
    assert_eq!(key.id, records.key_id);
    // Deprecated as a hash for tables; as SipHash-2-4 it is the standard library's only one.
    #[allow(deprecated)]
    let mut hasher = std::hash::SipHasher::new_with_keys(key.k0, key.k1);
    hasher.write(&records.as_bytes()[..std::mem::offset_of!(Records, tag)]);
    records.tag = hasher.finish();
}
