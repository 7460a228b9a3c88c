//! What comes first, when an engine comes and when it goes.

use std::os::fd::OwnedFd;
use std::thread;

use carnet_engine::{Engine, Options};
use carnet_policy::HostAction;
use libbpf_rs::{MapCore, MapFlags};
use nix::errno::Errno;

use crate::place::{Place, everything, on_cgroup, until};

#[test]
fn what_redirects_goes_first_and_the_rest_when_nothing_is_on_its_way() {
    let place = Place::new();
    for is_pinned in [false, true] {
        let mut engine = place.load();
        if is_pinned {
            engine.pin(&place.folder).expect("pin");
        }
        engine.attach_services(&place.cgroup).expect("attach");
        engine.attach_governed(&place.cgroup).expect("attach");
        let is_redirecting = |name: &str| name.starts_with("carnet_connect");
        let redirecting = engine.attachments().filter(|at| is_redirecting(at.program)).count();
        let count = place.links().len();
        // Detached, whoever else has a descriptor.
        let _held: Vec<OwnedFd> = engine.link_fds().iter().map(|fd| fd.try_clone_to_owned().unwrap()).collect();

        let handovers = engine.map_handle("carnet_handovers").unwrap();
        let (key, value) = (vec![7; handovers.key_size() as usize], vec![0; handovers.value_size() as usize]);
        handovers.update(&key, &value, MapFlags::ANY).unwrap();
        let id = place.cgroup.id();
        let watching = thread::spawn(move || {
            until(|| on_cgroup(id).len() < count);
            until(|| on_cgroup(id).len() == count - redirecting);
            handovers.delete(&key).unwrap();
        });
        let removed = engine.take_down().unwrap();
        watching.join().unwrap();
        assert_eq!((removed.links, redirecting), (count, 2), "pinned: {is_pinned}");
        assert_eq!(place.links(), []);
    }
}

/// In the order of `pin`'s documentation.
#[test]
fn wherever_a_start_is_cut_short_the_next_one_goes_on() {
    let place = Place::new();
    let destination = place.server.local_addr().unwrap();
    let block = everything(HostAction::Block).compile(1).unwrap();
    for steps in 0..=4 {
        let mut engine = place.load();
        let mut all: [&mut dyn FnMut(&mut Engine); 4] = [
            &mut |engine| engine.apply(&block).expect("apply"),
            &mut |engine| engine.pin(&place.folder).expect("pin"),
            &mut |engine| engine.attach_services(&place.cgroup).expect("attach"),
            &mut |engine| engine.attach_governed(&place.cgroup).expect("attach"),
        ];
        all.iter_mut().take(steps).for_each(|step| step(&mut engine));
        drop(engine);
        let (is_pinned, is_governed) = (steps >= 2, steps == 4);
        assert_eq!(place.connect(destination).is_err(), is_governed, "after {steps}");

        let adopted = Engine::adopt(&place.folder, &Options::default()).unwrap();
        assert_eq!(adopted.is_some(), is_pinned, "after {steps}");
        let mut engine = match adopted {
            Some(adopted) => adopted.engine,
            None => {
                let mut engine = place.load();
                engine.apply(&block).expect("apply");
                engine.pin(&place.folder).expect("pin");
                engine
            }
        };
        engine.attach_services(&place.cgroup).expect("attach");
        engine.attach_governed(&place.cgroup).expect("attach");
        assert_eq!(place.refused(destination), Some(Errno::EACCES as i32), "after {steps}");
        let links = place.links().len();
        assert_eq!(engine.take_down().unwrap().links, links);
        assert_eq!((place.links(), place.folder.exists()), (Vec::new(), false));
    }
}
