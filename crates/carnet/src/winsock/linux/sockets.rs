//! What Windows keeps at a socket and Linux does not: whether it takes overlapped operations, and its completion port.

use std::{
    collections::HashMap,
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::{Arc, LazyLock, Mutex, Weak},
};

use super::{port::Port, sync::ignore_poison};
use crate::sys;

/// A socket for the time of a call.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Named<'a> {
    descriptor: BorrowedFd<'a>,
    /// The kernel's name of the socket, never used again.
    cookie: u64,
}

impl<'a> Named<'a> {
    /// Fails where it is no open socket's.
    pub(crate) fn of(descriptor: BorrowedFd<'a>) -> io::Result<Self> {
        Ok(Self { descriptor, cookie: sys::cookie_of(sys::number(descriptor))? })
    }

    /// The socket for longer than the call.
    pub(crate) fn keep(self) -> io::Result<Kept> {
        let number = sys::number(self.descriptor);
        Ok(Kept { number, descriptor: self.descriptor.try_clone_to_owned()?, cookie: self.cookie })
    }

    pub(crate) fn is_overlapped(self) -> bool {
        ignore_poison(KNOWN.lock()).sockets.get(&self.cookie).is_none_or(|known| known.overlapped)
    }

    /// Marks a new socket as one that takes no overlapped operations.
    pub(crate) fn refuse_overlapped(self) {
        self.remember(|known| known.overlapped = false);
    }

    pub(crate) fn port(self) -> Option<(Arc<Port>, usize)> {
        let known = ignore_poison(KNOWN.lock());
        let (port, key) = known.sockets.get(&self.cookie)?.port.as_ref()?;
        Some((port.upgrade()?, *key))
    }

    /// False where it has a port already.
    pub(crate) fn attach(self, port: &Arc<Port>, key: usize) -> bool {
        self.remember(|known| {
            // One that is closed, and awaits no operation, is none any more.
            let free = known.port.as_ref().is_none_or(|(port, _)| port.strong_count() == 0);
            if free {
                known.port = Some((Arc::downgrade(port), key));
            }
            free
        })
    }

    /// It is about to be closed.
    pub(crate) fn forget(self) {
        ignore_poison(KNOWN.lock()).sockets.remove(&self.cookie);
    }

    fn remember<R>(self, change: impl FnOnce(&mut Known) -> R) -> R {
        let mut table = ignore_poison(KNOWN.lock());
        // Sockets may be closed by close() alone. The table is looked through when it has grown to twice of what was left.
        if table.sockets.len() >= table.look_through_at {
            table.sockets.retain(|cookie, known| sys::cookie_of(known.number).is_ok_and(|now| now == *cookie));
            table.look_through_at = LOOK_THROUGH_AT.max(2 * table.sockets.len());
        }
        let number = sys::number(self.descriptor);
        change(table.sockets.entry(self.cookie).or_insert(Known { number, overlapped: true, port: None }))
    }
}

impl AsFd for Named<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor
    }
}

/// A socket by a descriptor of its own, so that its number may be closed and used again meanwhile.
#[derive(Debug)]
pub(crate) struct Kept {
    number: usize,
    descriptor: OwnedFd,
    cookie: u64,
}

impl Kept {
    /// Whether the number is still this socket's.
    pub(crate) fn is_open(&self) -> bool {
        sys::cookie_of(self.number).is_ok_and(|now| now == self.cookie)
    }

    pub(crate) fn is(&self, socket: Named<'_>) -> bool {
        self.has(socket.cookie)
    }

    /// Whether this is its name in the kernel.
    pub(crate) fn has(&self, cookie: u64) -> bool {
        self.cookie == cookie
    }
}

impl AsFd for Kept {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

static KNOWN: LazyLock<Mutex<Table>> =
    LazyLock::new(|| Mutex::new(Table { sockets: HashMap::new(), look_through_at: LOOK_THROUGH_AT }));

/// By cookie: the sockets that are not as `socket()` makes them.
struct Table {
    sockets: HashMap<u64, Known>,
    look_through_at: usize,
}

const LOOK_THROUGH_AT: usize = 64;

#[derive(Debug)]
struct Known {
    number: usize,
    overlapped: bool,
    port: Option<(Weak<Port>, usize)>,
}
