//! Pins: programs, links and maps as files below a folder of a bpf file system, by which they outlive their process.
//!
//! ```text
//! /sys/fs/bpf/carnet/           0700, its owner is who pinned
//!     maps/carnet_socks ...     every map
//!     programs/carnet_connect4  every program that is attached somewhere
//!     links/carnet_connect4-77  every link: program, and id of the cgroup it is on
//!     stamp                     a symbolic link to no file: its text says what has been pinned, and that it is whole
//! ```
//!
//! The stamp is written last and removed first. A folder without one is what a process left that ended in the middle: it
//! is never adopted, and removed by the next one that pins, adopts or removes there. Who works on the folder has it locked,
//! and an [`Engine`] has it as long as it lives.
//!
//! Who starts adopts what is there, and where there is nothing goes on in this order, which leaves no gap whenever the
//! process is killed, and nothing half-made that anything depends on:
//!
//! 1. [`Engine::adopt`]. `None`: [`Engine::load`].
//! 2. [`Engine::apply`]: from the first link on there is a policy.
//! 3. [`Engine::pin`], before anything is attached. What is attached first and pinned then is taken off again by a kill in
//!    between, and half a set of links is removed by the next start.
//! 4. [`Engine::attach_services`] for the services' cgroups, [`Engine::attach_outside_service`] for those outside, and
//!    [`Engine::attach_governed`] at last. Each link is pinned as it is attached. Who adopts says all of it again: what is
//!    attached stays, and what a kill has left out is added.
//!
//! [`Engine::adopt`] goes on where another process has ended, of this build or of an earlier one. Which layouts it takes on
//! is in docs/adr/0018-pins-outlive-the-daemon.md.

mod adopt;
mod folder;
mod found;
mod layout;
mod mount;
mod remove;
mod stamp;

use std::path::Path;

use libbpf_rs::{MapCore, MapHandle, Object};

pub use self::adopt::Adopted;
pub(crate) use self::folder::Folder;
pub(crate) use self::found::is_on_a_cgroup;
pub use self::found::{Found, FoundLink, FoundProgram, State, inspect};
pub use self::mount::{default_folder, mount_point};
pub use self::remove::{Removed, remove};
use self::stamp::Stamp;
use crate::attach::{Attached, Attachment, in_order, place_of};
use crate::load::program;
use crate::{Engine, Error, ErrorKind};

impl Engine {
    /// Pins the engine below `folder`, whose parent is on a bpf file system: `/sys/fs/bpf/carnet`, see [`default_folder`].
    /// What is attached later is pinned too.
    ///
    /// What a process left there that ended while it pinned is removed first. Where a whole engine is pinned, this fails:
    /// [`Engine::adopt`] it, or [`remove`] it.
    pub fn pin(&mut self, folder: &Path) -> Result<(), Error> {
        if let Some(pins) = &self.pins {
            let what = format!("the engine is pinned already, at {}", pins.path().display());
            return Err(Error::new(ErrorKind::Io, what));
        }
        let folder = Folder::make(folder)?;
        match self.fill(&folder) {
            Ok(()) => {
                self.pins = Some(folder);
                Ok(())
            }
            Err(error) => {
                // The engine goes on without pins, and what is attached stays so. A link remembers where it is pinned.
                for attached in &mut self.links {
                    let _ = attached.link.unpin();
                }
                let _ = folder.clear();
                Err(error)
            }
        }
    }

    /// Where it is pinned.
    pub fn pinned_at(&self) -> Option<&Path> {
        self.pins.as_ref().map(Folder::path)
    }

    /// Goes on with the engine that is pinned below `folder`: takes its maps, and puts this build's programs in the place
    /// of its own, link by link, without a moment in which there is none. `None`: no whole engine is pinned there. What a
    /// process left that ended while it pinned or removed is taken off then.
    ///
    /// `options.engine_id` and the sizes in `options` count for nothing here: the maps are what they are.
    ///
    /// Where the maps are of another layout this fails with [`ErrorKind::Incompatible`], and nothing has been changed. Where
    /// another process has the pins, it fails with [`ErrorKind::Held`].
    pub fn adopt(folder: &Path, options: &crate::Options) -> Result<Option<Adopted>, Error> {
        adopt::adopt(folder, options)
    }

    /// Takes the engine off this host: detaches everything, removes the pins where there are any, and ends. See [`remove`].
    pub fn take_down(mut self) -> Result<Removed, Error> {
        match self.pins.take() {
            Some(folder) => remove::remove_all(folder),
            None => remove::detach_all(&self),
        }
    }

    /// All but the lock is in place when this returns.
    fn fill(&mut self, folder: &Folder) -> Result<(), Error> {
        folder.make_parts()?;
        for map in self.object.maps().filter(|map| is_shared(&map.name().to_string_lossy())) {
            let path = folder.map(&map.name().to_string_lossy());
            let pinned = MapHandle::try_from(&map).and_then(|mut map| map.pin(&path));
            pinned.map_err(|error| cannot_pin(&path, error))?;
        }
        for name in in_order() {
            pin_program(&self.object, name, &folder.program(name))?;
        }
        // Those that redirect come last here too: whoever is killed in the middle leaves none that hands over to nobody.
        self.links.sort_by_key(|attached| place_of(attached.at.program));
        for attached in &mut self.links {
            pin_link(folder, attached)?;
        }
        folder.stamp(&Stamp::of_this_build()?)
    }

    pub(crate) fn pin_link(&self, attached: &mut Attached) -> Result<(), Error> {
        self.pins.as_ref().map_or(Ok(()), |folder| pin_link(folder, attached))
    }

    pub(crate) fn unpin_link(&self, at: &Attachment) -> Result<(), Error> {
        self.pins.as_ref().map_or(Ok(()), |folder| folder.unpin(&folder.link(at.program, at.cgroup)))
    }
}

/// Whether a map goes on with the next process. libbpf's own, such as `.bss`, are a program's and not an engine's.
fn is_shared(map: &str) -> bool {
    map.starts_with("carnet_")
}

fn pin_link(folder: &Folder, attached: &mut Attached) -> Result<(), Error> {
    let path = folder.link(attached.at.program, attached.at.cgroup);
    attached.link.pin(&path).map_err(|error| cannot_pin(&path, error))
}

fn pin_program(object: &Object, name: &str, path: &Path) -> Result<(), Error> {
    program(object, name)?.pin(path).map_err(|error| cannot_pin(path, error))
}

fn cannot_pin(path: &Path, error: libbpf_rs::Error) -> Error {
    Error::bpf(format!("cannot pin {}", path.display()), error)
}
