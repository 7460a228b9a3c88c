//! Handles. A number is not used again, so a closed handle is known for one.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    mem::offset_of,
    sync::{Arc, Mutex},
};

use super::{apc::Apcs, event::Event, port::Port, sync::ignore_poison};
use crate::{
    sys::Memory,
    winsock::{
        WSATHREADID,
        numbers::{WSA_INVALID_HANDLE, WSAEFAULT},
    },
};

#[derive(Clone, Debug)]
pub(crate) enum Object {
    Event(Arc<Event>),
    Port(Arc<Port>),
    /// A thread that runs completion routines.
    Thread(Arc<Apcs>),
}

/// The new object's handle; never 0.
pub(crate) fn insert(object: Object) -> usize {
    let mut guard = ignore_poison(TABLE.lock());
    let table = &mut *guard;
    loop {
        // Where numbers are of 32 bits they may begin again.
        table.last = table.last.checked_add(STEP).unwrap_or(BASE);
        if let Entry::Vacant(free) = table.objects.entry(table.last) {
            free.insert(object);
            return table.last;
        }
    }
}

pub(crate) fn event(handle: usize) -> Option<Arc<Event>> {
    match find(handle) {
        Some(Object::Event(event)) => Some(event),
        _ => None,
    }
}

pub(crate) fn port(handle: usize) -> Option<Arc<Port>> {
    match find(handle) {
        Some(Object::Port(port)) => Some(port),
        _ => None,
    }
}

pub(crate) fn thread(handle: usize) -> Option<Arc<Apcs>> {
    match find(handle) {
        Some(Object::Thread(thread)) => Some(thread),
        _ => None,
    }
}

/// The thread that a `WSATHREADID` names.
pub(crate) fn thread_of(id: Memory) -> Result<Arc<Apcs>, i32> {
    thread(handle_of(id)?).ok_or(WSA_INVALID_HANDLE)
}

/// The handle in a `WSATHREADID`.
pub(crate) fn handle_of(id: Memory) -> Result<usize, i32> {
    id.word(offset_of!(WSATHREADID, ThreadHandle)).map_err(|_fault| WSAEFAULT)
}

/// Closes the handle. What uses the object keeps it.
pub(crate) fn remove(handle: usize) -> Option<Object> {
    ignore_poison(TABLE.lock()).objects.remove(&handle)
}

fn find(handle: usize) -> Option<Object> {
    ignore_poison(TABLE.lock()).objects.get(&handle).cloned()
}

struct Table {
    last: usize,
    objects: BTreeMap<usize, Object>,
}

static TABLE: Mutex<Table> = Mutex::new(Table { last: BASE, objects: BTreeMap::new() });

/// More than any socket's number, which are handles as well.
const BASE: usize = 1 << 24;

/// The two low bits are free, as they are on Windows: programs mark a handle there.
const STEP: usize = 4;
