//! An upgrade: what is pinned is another build's.

use std::fs;
use std::os::fd::{AsFd, AsRawFd};

use carnet_e2e::programs::compile_bpf;
use carnet_engine::{Engine, Options};
use libbpf_rs::{Link, ObjectBuilder, ProgramHandle};

use crate::course::{Course, listed};

#[test]
fn programs_of_another_build_are_replaced_and_named() {
    let course = Course::new();
    course.pinned("pinned").kill();
    drop(course.flow());
    let links = course.links();

    another_build_has_been_here(&course);
    course.assert_not_redirected();

    let adopted = Engine::adopt(&course.folder, &Options::default()).unwrap().expect("pinned");
    assert_eq!(adopted.changed, ["carnet_connect4"]);
    assert_eq!(adopted.dropped.iter().map(|link| &*link.program).collect::<Vec<_>>(), ["carnet_gone"]);
    let said = adopted.to_string();
    assert!(said.contains("Replaced by this build's: carnet_connect4. One link was of no use"), "{said}");
    assert_eq!(course.links(), links);
    drop(course.flow());
    let files = listed(&course.folder);
    assert!(!files.iter().any(|path| path.to_string_lossy().contains("carnet_gone")), "{files:?}");
    let pinned = course.folder.join("programs/carnet_connect4");
    assert_eq!(ProgramHandle::from_pinned_path(&pinned).unwrap().name(), "carnet_connect4");

    adopted.engine.take_down().unwrap();
    course.assert_nothing_left();
}

/// Its program is pinned in the place of ours, and on the link. It has one more, of which this build knows nothing.
fn another_build_has_been_here(course: &Course) {
    let object = compile_bpf("tests/pins/other.bpf.c");
    let object = ObjectBuilder::default().open_memory(&object).unwrap().load().unwrap();
    let mut program = object.progs_mut().next().unwrap();
    let [ours, unknown] = ["programs/carnet_connect4", "programs/carnet_gone"].map(|name| course.folder.join(name));
    fs::remove_file(&ours).unwrap();
    program.pin(&ours).unwrap();
    program.pin(&unknown).unwrap();

    let link = course.folder.join(format!("links/carnet_connect4-{}", course.ground.governed.id()));
    Link::open(link).unwrap().update_prog(&program).unwrap();
    let mut link = program.attach_cgroup(course.service.as_fd().as_raw_fd()).unwrap();
    link.pin(course.folder.join(format!("links/carnet_gone-{}", course.service.id()))).unwrap();
}
