//! Going on with a pinned engine.

use std::fmt;
use std::os::fd::AsFd;
use std::path::Path;

use libbpf_rs::{ErrorKind as BpfErrorKind, Link, MapHandle, OpenObject};

use super::folder::{self, Folder};
use super::found::{Found, FoundLink, is_on_a_cgroup, programs};
use super::stamp::{Difference, Stamp, check_map};
use super::{is_shared, pin_program, remove};
use crate::attach::{Attached, Attachment, in_order, place_of};
use crate::load::{self, program};
use crate::{Engine, Error, Options};

/// An engine that goes on where another process has ended.
#[non_exhaustive]
pub struct Adopted {
    /// It has this build's programs now, on all cgroups on which there were any.
    pub engine: Engine,
    /// What was there before.
    pub found: Found,
    /// Programs that were not those of this build, by the kernel's hash of their instructions.
    pub changed: Vec<&'static str>,
    /// Links that are no more: their cgroups have been removed, or this build has no such program. They are unpinned.
    pub dropped: Vec<FoundLink>,
}

impl fmt::Display for Adopted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.found)?;
        match &self.changed[..] {
            [] => f.write_str(". Its programs are those of this build")?,
            changed => write!(f, ". Replaced by this build's: {}", changed.join(", "))?,
        }
        match self.dropped.len() {
            0 => Ok(()),
            1 => f.write_str(". One link was of no use any more"),
            count => write!(f, ". {count} links were of no use any more"),
        }
    }
}

impl fmt::Debug for Adopted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Adopted")
            .field("found", &self.found)
            .field("changed", &self.changed)
            .field("dropped", &self.dropped)
            .finish_non_exhaustive()
    }
}

pub fn adopt(path: &Path, options: &Options) -> Result<Option<Adopted>, Error> {
    let Some(folder) = Folder::open(path)? else { return Ok(None) };
    let Some(text) = folder::stamp(path)? else {
        remove::remove_all(folder)?;
        return Ok(None);
    };
    // Until all is known to fit, nothing is changed.
    let ours = Stamp::of_this_build()?;
    let theirs = Stamp::parse(&text).ok_or_else(|| Difference::Unknown.at(path))?;
    ours.check(&theirs).map_err(|difference| difference.at(path))?;
    let mut open = load::open(options)?;
    take_maps(&folder, &mut open)?;
    let found = Found::at(path, &text)?;
    let mut engine = Engine::go_on(open, options)?;

    // From here on there may be values as only this build knows them.
    folder.stamp(&ours)?;
    let dropped = engine.replace_programs(&folder, &found)?;
    let changed = engine.pin_programs_again(&folder)?;
    engine.pins = Some(folder);
    Ok(Some(Adopted { engine, found, changed, dropped }))
}

/// Has the programs that are to be loaded use the pinned maps.
fn take_maps(folder: &Folder, open: &mut OpenObject) -> Result<(), Error> {
    for mut map in open.maps_mut() {
        let name = map.name().to_string_lossy().into_owned();
        if !is_shared(&name) {
            continue;
        }
        let path = folder.map(&name);
        let pinned = match MapHandle::from_pinned_path(&path) {
            Err(error) if error.kind() == BpfErrorKind::NotFound => {
                return Err(Difference::New(name).at(folder.path()));
            }
            pinned => pinned.map_err(|error| Error::bpf(format!("cannot open {}", path.display()), error))?,
        };
        check_map(&map, &pinned).map_err(|difference| difference.at(folder.path()))?;
        map.reuse_fd(pinned.as_fd()).map_err(|error| Error::bpf(format!("cannot go on with the map {name}"), error))?;
    }
    Ok(())
}

impl Engine {
    /// Those of the socket options and of what takes connections over first, those that redirect last: they are all of one
    /// build again before anything new is begun. Returns what is no link any more.
    fn replace_programs(&mut self, folder: &Folder, found: &Found) -> Result<Vec<FoundLink>, Error> {
        let mut links: Vec<_> = found.links.iter().collect();
        links.sort_by_key(|link| place_of(&link.program));
        let mut dropped = Vec::new();
        for there in links {
            let path = folder.link(&there.program, there.cgroup);
            let mut link =
                Link::open(&path).map_err(|error| Error::bpf(format!("cannot open {}", path.display()), error))?;
            let name = in_order().find(|name| *name == there.program);
            if let Some(name) = name.filter(|_| is_on_a_cgroup(&link)) {
                match link.update_prog(&*program(&self.object, name)?) {
                    Ok(()) => {
                        let at = Attachment { cgroup: there.cgroup, program: name };
                        self.links.push(Attached { at, link });
                        continue;
                    }
                    // Its cgroup has been removed since.
                    Err(_) if !is_on_a_cgroup(&link) => {}
                    Err(error) => {
                        let what = format!("cannot replace {name} on the cgroup {}", there.cgroup);
                        return Err(Error::bpf(what, error));
                    }
                }
            }
            // Of a removed cgroup, or of a program that has no successor.
            link.detach().map_err(|error| Error::bpf(format!("cannot detach {}", path.display()), error))?;
            folder.unpin(&path)?;
            dropped.push(there.clone());
        }
        Ok(dropped)
    }

    /// Returns those that differ from the ones before.
    fn pin_programs_again(&self, folder: &Folder) -> Result<Vec<&'static str>, Error> {
        let before = programs(folder.path())?;
        for name in in_order() {
            folder.replace(&folder.program(name), |next| pin_program(&self.object, name, next))?;
        }
        for gone in before.iter().filter(|program| place_of(&program.name).is_none()) {
            folder.unpin(&folder.program(&gone.name))?;
        }
        let now = programs(folder.path())?;
        Ok(in_order().filter(|name| tag(&before, name) != tag(&now, name)).collect())
    }
}

fn tag(programs: &[super::FoundProgram], name: &str) -> Option<[u8; 8]> {
    programs.iter().find(|program| program.name == name).map(|program| program.tag)
}
