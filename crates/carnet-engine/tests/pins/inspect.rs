//! Who looks at pins.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::thread;

use carnet_engine::ErrorKind;
use carnet_engine::pin::{self, State};
use carnet_policy::HostAction;

use crate::assert_one_line;
use crate::place::Place;

#[test]
fn who_may_not_look_is_told_so_and_not_that_there_is_nothing() {
    let place = Place::new();
    let _engine = place.pinned(HostAction::Permit);
    let inspect_as_nobody = || {
        let folder = place.folder.clone();
        // The file system's user is a thread's own.
        thread::spawn(move || {
            nix::unistd::setfsuid(65534.into());
            pin::inspect(&folder)
        })
        .join()
        .unwrap()
    };
    for (mode, at) in [(0o700, &place.bpffs), (0o755, &place.bpffs)] {
        fs::set_permissions(at, Permissions::from_mode(mode)).unwrap();
        let error = inspect_as_nobody().expect_err("it is root's");
        assert_eq!(*error.kind(), ErrorKind::NoPrivilege, "{mode:o}: {error}");
        assert_one_line(&error, &["sudo", place.folder.to_str().unwrap()]);
    }
    assert!(matches!(pin::inspect(&place.folder).unwrap(), State::Whole(_)));
}
