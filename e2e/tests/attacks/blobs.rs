//! Records blobs that are forged, stolen or put together.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::thread;
use std::time::Instant;

use carnet::Redirect;
use carnet_abi::{CARNET_RECORDS, EVENT_SET, Records, SOL_CARNET};
use carnet_e2e::sockets::{PATIENCE, stream};
use carnet_e2e::{Ground, Sandbox, Scene, raw, set_records};
use carnet_policy::{Owner, Service as Kind};
use libbpf_rs::{MapCore, MapHandle};
use libc::{EACCES, EBADMSG, EINVAL, ENOPROTOOPT, ESTALE};
use zerocopy::FromBytes;

use super::{Over, as_user};

/// Any bytes, anywhere, of one true record or of two that are mixed.
#[test]
fn what_is_not_a_whole_record_is_refused() {
    let scene = Scene::new();
    let (_client, other) = scene.sandbox.arrive(&scene.first, scene.destination());
    let (own, other) = (scene.blob(), Redirect::of(&other).records().unwrap().as_bytes().to_vec());
    let seed = RandomState::new().build_hasher().finish();
    println!("seed {seed}");
    let mut random = Random(seed);
    for whole in [&own, &other] {
        assert_eq!(scene.set(0, &scene.socket(), whole), Ok(()));
    }
    let socket = scene.socket();
    scene.sandbox.in_service(0, || {
        for _ in 0..20_000 {
            let mut blob = own.clone();
            match random.below(3) {
                0 => (0..=random.below(8)).for_each(|_| blob[random.below(own.len())] = random.next() as u8),
                1 => {
                    let (from, to) = random.range();
                    blob[from..to].copy_from_slice(&other[from..to]);
                }
                _ => {
                    let (from, to) = random.range();
                    blob[from..to].reverse();
                }
            }
            if blob != own && blob != other {
                let refused = set_records(&socket, &blob).unwrap_err();
                assert!([EBADMSG, EINVAL, ESTALE].contains(&refused), "{refused}: {blob:02x?}");
            }
        }
    });
    scene.assert_goes_on_as_nothing(socket);
}

/// The kernel copies it before anybody looks: one thread sets it, another turns it into another flow's and back.
#[test]
fn a_record_that_changes_while_it_is_set_is_one_or_none() {
    const EACH: usize = 20;
    let mut scene = Scene::new();
    let (_client, other) = scene.sandbox.arrive(&scene.first, scene.destination());
    let (own, other) = (scene.blob(), Redirect::of(&other).records().unwrap().as_bytes().to_vec());
    let shared: Vec<_> = own.iter().map(|&byte| AtomicU8::new(byte)).collect();
    let (socket, over) = (scene.socket(), AtomicBool::new(false));
    scene.sandbox.events();
    let (taken, refused) = scene.sandbox.in_service(0, || {
        thread::scope(|scope| {
            let _over = Over(&over);
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    for blob in [&other, &own] {
                        blob.iter().zip(&shared).for_each(|(&byte, at)| at.store(byte, Ordering::Relaxed));
                        thread::yield_now();
                    }
                }
            });
            let (mut taken, mut refused) = (0, Vec::new());
            let end = Instant::now() + PATIENCE;
            while (taken < EACH || refused.len() < EACH) && Instant::now() < end {
                match raw::set_shared(&socket, SOL_CARNET, CARNET_RECORDS, &shared) {
                    Ok(()) => taken += 1,
                    Err(errno) => refused.push(errno),
                }
            }
            (taken, refused)
        })
    });
    assert!(taken >= EACH && refused.len() >= EACH, "{taken} were taken, and {} not", refused.len());
    assert!(refused.iter().all(|&errno| errno == EBADMSG), "{refused:?}");
    let flows = [flow_of(&own), flow_of(&other)];
    let events = scene.sandbox.events();
    let taken: Vec<_> = events.iter().filter(|event| event.kind == EVENT_SET && event.error == 0).collect();
    assert!(!taken.is_empty());
    assert!(taken.iter().all(|event| flows.contains(&event.record.flow)), "{taken:#?}");
}

/// An application that has got hold of a record, and even of a service's socket.
#[test]
fn a_stolen_record_is_of_no_use_to_an_application() {
    let scene = Scene::new();
    let (blob, services, to) = (scene.blob(), scene.socket(), scene.destination());
    let refused = as_user(&scene.sandbox, || {
        let own = stream(to);
        [set_records(&own, &blob), set_records(&services, &blob)]
    });
    assert_eq!(refused, [Err(ENOPROTOOPT), Err(EACCES)]);
    // Root, which the service is too, in another cgroup.
    assert_eq!(scene.sandbox.in_app(|| set_records(&services, &blob)), Err(EACCES));
    scene.assert_goes_on_as_nothing(services);
}

/// Where a uid owns the provider, every process of it does, and no other.
#[test]
fn a_stolen_record_is_of_no_use_to_another_user() {
    let mut scene = Scene::new();
    scene.sandbox.policy.providers[0].owners = vec![Owner::Uid(raw::NOBODY)];
    scene.sandbox.apply();
    let (blob, socket) = (scene.blob(), scene.socket());
    assert_eq!(scene.set(0, &socket, &blob), Err(EACCES), "root, in the service's cgroup");
    assert_eq!(as_user(&scene.sandbox, || set_records(&socket, &blob)), Ok(()), "the owner, wherever it is");
}

/// One that is good at its engine says nothing to another, though the service is the same.
#[test]
fn a_record_is_of_no_use_at_another_engine_on_the_host() {
    let scene = Scene::new();
    let blob = scene.blob();
    let ground = Ground::beside(scene.sandbox.ground());
    let mut other = Sandbox::on(ground);
    let service = other.service(Kind::Aware);
    let socket = other.in_service(service.index, || stream(scene.destination()));
    assert_eq!(other.in_service(service.index, || set_records(&socket, &blob)), Err(ESTALE));
}

/// Who could read the key could make any record.
#[test]
fn the_key_is_for_those_who_may_read_any_bpf_map() {
    let scene = Scene::new();
    let keys = scene.sandbox.engine.map_handle("carnet_keys").unwrap().info().unwrap().info.id;
    assert!(MapHandle::from_map_id(keys).is_ok(), "root may");
    let refused = as_user(&scene.sandbox, || MapHandle::from_map_id(keys).map(drop)).unwrap_err();
    assert_eq!(refused.kind(), libbpf_rs::ErrorKind::PermissionDenied);
}

fn flow_of(blob: &[u8]) -> [u64; 2] {
    Records::read_from_bytes(blob).unwrap().flow
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    /// Of a record's bytes, in either order.
    fn range(&mut self) -> (usize, usize) {
        let ends = size_of::<Records>() + 1;
        let (from, to) = (self.below(ends), self.below(ends));
        (from.min(to), from.max(to))
    }
}
