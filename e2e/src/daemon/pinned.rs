use std::fs;
use std::path::{Path, PathBuf};

use carnet_engine::pin;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};

use crate::programs::Scratch;

/// A folder for pins, in a bpf file system of the test's own: it goes with the last process that sees it.
pub struct Pins {
    mounted: PathBuf,
    folder: PathBuf,
}

impl Pins {
    pub fn new(scratch: &Scratch) -> Self {
        unshare(CloneFlags::CLONE_NEWNS).expect("a mount namespace; needs root");
        let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        mount(None::<&str>, "/", None::<&str>, private, None::<&str>).expect("private mounts");
        let mounted = scratch.file("bpf");
        fs::create_dir(&mounted).expect("a folder");
        mount(Some("bpf"), &mounted, Some("bpf"), MsFlags::empty(), None::<&str>).expect("a bpf file system");
        Self { folder: mounted.join("carnet"), mounted }
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }
}

impl Drop for Pins {
    fn drop(&mut self) {
        if let Err(error) = pin::remove(&self.folder) {
            eprintln!("{error}");
        }
        if let Err(error) = umount2(&self.mounted, MntFlags::MNT_DETACH) {
            eprintln!("cannot unmount: {error}");
        }
    }
}
