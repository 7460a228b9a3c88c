//! Cookies of network namespaces, by which records and policies name them.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::thread;

use libbpf_rs::{Object, ProgramInput};
use nix::fcntl::OFlag;
use nix::sched::{CloneFlags, setns};
use nix::sys::statfs::{NSFS_MAGIC, fstatfs};

use crate::load::{self, Options, program};
use crate::{Error, ErrorKind};

/// Cookie of the network namespace at this path, such as `/run/netns/NAME` or `/proc/PID/ns/net`: the `netns_cookie` in the
/// origin of every flow that begins there.
///
/// It takes no engine, but what an engine takes to be loaded, and `CAP_SYS_ADMIN` to enter the namespace. That is done by
/// a thread of its own: the caller stays where it is.
pub fn netns_cookie(path: &Path) -> io::Result<u64> {
    let of = || format!("cannot tell which network namespace {} is", path.display());
    let namespace = open(path)?;
    thread::scope(|scope| {
        let ask = || {
            let object = asking().map_err(|error| because(&of(), error))?;
            setns(&namespace, CloneFlags::CLONE_NEWNET).map_err(|errno| {
                let error = io::Error::from(errno);
                io::Error::new(error.kind(), format!("{}: it cannot be entered: {error}", of()))
            })?;
            of_this_thread(&object).map_err(|error| because(&of(), error))
        };
        let asked = thread::Builder::new().name("carnet-netns".into()).spawn_scoped(scope, ask)?;
        asked.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Where the path leads may be anybody's choice: opening a FIFO waits, and opening a device does things. So nothing is opened
/// but what is a namespace.
fn open(path: &Path) -> io::Result<File> {
    let place = OpenOptions::new().read(true).custom_flags(OFlag::O_PATH.bits()).open(path)?;
    if fstatfs(&place).map_err(io::Error::from)?.filesystem_type() != NSFS_MAGIC {
        let what = format!("{} is no network namespace", path.display());
        return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
    }
    File::open(format!("/proc/self/fd/{}", place.as_raw_fd()))
}

/// Cookie of the calling thread's network namespace.
pub(crate) fn of_this_thread(object: &Object) -> Result<u64, Error> {
    let mut cookie = [0; 8];
    let input = ProgramInput { context_in: Some(&mut cookie), ..ProgramInput::default() };
    let asked = program(object, NETNS)?.test_run(input);
    asked.map_err(|error| Error::bpf("cannot ask for the network namespace", error))?;
    Ok(u64::from_ne_bytes(cookie))
}

/// The one program that asks, without any map.
fn asking() -> Result<Object, Error> {
    let mut open = load::open(&Options::default())?;
    for mut program in open.progs_mut() {
        let wanted = program.name() == NETNS;
        program.set_autoload(wanted);
    }
    for mut map in open.maps_mut() {
        map.set_autocreate(false).map_err(|error| Error::bpf("cannot leave the maps out", error))?;
    }
    load::load(open)
}

fn because(what: &str, error: Error) -> io::Error {
    let kind = match error.kind() {
        ErrorKind::NoPrivilege => io::ErrorKind::PermissionDenied,
        _ => io::ErrorKind::Other,
    };
    io::Error::new(kind, format!("{what}: {error}"))
}

/// In bpf/netns.h.
const NETNS: &str = "carnet_netns";
