//! The state of the overlapped operations (`crates/carnet/src/winsock/linux/pending.rs`, the very file) under a model
//! checker: each test is run once for every order in which its threads can meet.
//!
//!     make loom
#![cfg(test)]

#[path = "../../crates/carnet/src/winsock/linux/pending.rs"]
mod pending;
mod sync;

use loom::{
    cell::UnsafeCell,
    sync::{
        Arc,
        atomic::{
            AtomicBool, AtomicUsize,
            Ordering::{Acquire, Relaxed, Release},
        },
    },
    thread::{self, JoinHandle},
};

use self::pending::{Pending, Refused, Taken};

const KEY: usize = 0x1000;

/// An operation's memory, which belongs to the caller before and after, and to whoever has taken it in between. Loom
/// fails a test where two threads touch it and nothing orders them.
struct Memory {
    answer: UnsafeCell<u32>,
    /// How often an end was published.
    ends: AtomicUsize,
    /// The event: signalled by an end, reset by a beginning.
    event: AtomicBool,
}

impl Memory {
    fn new() -> Arc<Self> {
        Arc::new(Self { answer: UnsafeCell::new(0), ends: AtomicUsize::new(0), event: AtomicBool::new(false) })
    }

    fn write(&self, answer: u32) {
        self.answer.with_mut(|memory| {
            // SAFETY: loom checks that nobody else is here.
            unsafe { *memory = answer };
        });
    }

    fn read(&self) -> u32 {
        // SAFETY: loom checks that nobody writes.
        self.answer.with(|memory| unsafe { *memory })
    }
}

type Operations = Pending<Arc<Memory>>;

const PERFORMED: u32 = 1;
const ABORTED: u32 = 2;

fn begin(operations: &Operations, key: usize, memory: &Arc<Memory>) -> Result<(), Refused<()>> {
    let announce = || {
        memory.event.store(false, Relaxed);
        Ok(())
    };
    operations.begin(key, Arc::clone(memory), announce)
}

/// As `operations.rs` does it: performed with no lock held, and published in the step that ends it.
fn end(operations: &Operations, taken: Taken<Arc<Memory>>, answer: u32) {
    let memory = taken.work;
    memory.write(answer);
    operations.end(taken.claim, || {
        memory.ends.fetch_add(1, Release);
        memory.event.store(true, Relaxed);
    });
}

fn perform_next(operations: &Operations) {
    end(operations, operations.next(), PERFORMED);
}

/// How many were aborted.
fn abort(operations: &Operations, key: usize) -> usize {
    let taken = operations.take(|candidate, _| candidate == key);
    let count = taken.len();
    taken.into_iter().for_each(|taken| end(operations, taken, ABORTED));
    count
}

/// Performs so many, and sleeps while there is none.
fn worker(operations: &Arc<Operations>, turns: usize) -> JoinHandle<()> {
    let operations = Arc::clone(operations);
    thread::spawn(move || (0..turns).for_each(|_| perform_next(&operations)))
}

/// Tells how many it has aborted.
fn canceller(operations: &Arc<Operations>) -> JoinHandle<usize> {
    let operations = Arc::clone(operations);
    thread::spawn(move || abort(&operations, KEY))
}

/// The worker, a caller who cancels, and one who waits and then uses the memory.
#[test]
fn performed_or_cancelled_and_told_once() {
    loom::model(|| {
        let (operations, memory) = (Arc::new(Operations::new()), Memory::new());
        begin(&operations, KEY, &memory).unwrap();

        let worker = {
            let (operations, memory) = (Arc::clone(&operations), Arc::clone(&memory));
            thread::spawn(move || {
                // Only what is still there: a worker that waits for more would never end.
                for taken in operations.take(|_, _| true) {
                    end(&operations, taken, PERFORMED);
                }
                drop(memory);
            })
        };
        let canceller = canceller(&operations);

        operations.wait(KEY);
        let answer = memory.read();
        assert_eq!(memory.ends.load(Relaxed), 1, "told, and once, before anybody is woken");
        worker.join().unwrap();
        let cancelled = canceller.join().unwrap();
        assert_eq!(answer, if cancelled == 1 { ABORTED } else { PERFORMED });
    });
}

/// A close and a cancellation at once.
#[test]
fn of_two_who_cancel_one_does() {
    loom::model(|| {
        let (operations, memory) = (Arc::new(Operations::new()), Memory::new());
        begin(&operations, KEY, &memory).unwrap();
        let other = canceller(&operations);
        let mine = abort(&operations, KEY);
        assert_eq!(mine + other.join().unwrap(), 1);
        assert_eq!((memory.ends.load(Relaxed), memory.read()), (1, ABORTED));
    });
}

/// The worker sleeps until there is something, and misses nothing.
#[test]
fn the_worker_is_woken() {
    loom::model(|| {
        let (operations, first, second) = (Arc::new(Operations::new()), Memory::new(), Memory::new());
        let worker = worker(&operations, 2);
        begin(&operations, KEY, &first).unwrap();
        begin(&operations, KEY + 1, &second).unwrap();
        operations.wait(KEY);
        operations.wait(KEY + 1);
        assert_eq!((first.read(), second.read()), (PERFORMED, PERFORMED));
        worker.join().unwrap();
    });
}

/// Who sees that an operation has ended may begin the next one with the same memory at once, and the one who waits for
/// the first does not wait for the second.
#[test]
fn the_memory_is_free_when_the_end_is_seen() {
    loom::model(|| {
        let (operations, memory) = (Arc::new(Operations::new()), Memory::new());
        begin(&operations, KEY, &memory).unwrap();
        let worker = worker(&operations, 2);
        operations.wait(KEY);
        memory.write(0);
        assert_eq!(begin(&operations, KEY, &memory), Ok(()));
        operations.wait(KEY);
        assert_eq!((memory.read(), memory.ends.load(Relaxed)), (PERFORMED, 2));
        worker.join().unwrap();
    });
}

/// A caller who does not wait sees all of the end or nothing of it.
#[test]
fn a_look_is_before_the_end_or_after_it() {
    loom::model(|| {
        let (operations, memory) = (Arc::new(Operations::new()), Memory::new());
        begin(&operations, KEY, &memory).unwrap();
        let worker = worker(&operations, 1);
        let seen = operations.look(KEY, |pending| (!pending).then(|| (memory.read(), memory.ends.load(Relaxed))));
        assert!(seen.is_none_or(|seen| seen == (PERFORMED, 1)));
        if seen.is_none() {
            assert!(matches!(begin(&operations, KEY, &memory), Ok(()) | Err(Refused::Pending)));
        }
        worker.join().unwrap();
    });
}

/// A caller who asks nobody, and looks at the status word in its own memory.
#[test]
fn the_memory_is_free_when_the_status_is_seen() {
    loom::model(|| {
        let (operations, memory) = (Arc::new(Operations::new()), Memory::new());
        begin(&operations, KEY, &memory).unwrap();
        let worker = worker(&operations, 1);
        let seen = memory.ends.load(Acquire) == 1;
        if seen {
            assert_eq!(begin(&operations, KEY, &memory), Ok(()));
        }
        worker.join().unwrap();
        assert_eq!(memory.event.load(Relaxed), !seen, "the first end does not signal the second operation's event");
    });
}

/// And while it is not, no second operation begins in it.
#[test]
fn one_memory_is_one_operation() {
    loom::model(|| {
        let (operations, memory) = (Arc::new(Operations::new()), Memory::new());
        let both = [(); 2].map(|()| {
            let (operations, memory) = (Arc::clone(&operations), Arc::clone(&memory));
            thread::spawn(move || begin(&operations, KEY, &memory))
        });
        let begun = both.map(|thread| thread.join().unwrap());
        assert!(begun.contains(&Ok(())) && begun.contains(&Err(Refused::Pending)), "{begun:?}");
        assert_eq!(abort(&operations, KEY), 1);
    });
}

/// What was cancelled while it was queued is passed over, also when its key is in use again.
#[test]
fn a_cancelled_one_is_not_performed_in_the_place_of_the_next() {
    loom::model(|| {
        let (operations, first, second) = (Arc::new(Operations::new()), Memory::new(), Memory::new());
        begin(&operations, KEY, &first).unwrap();
        let worker = worker(&operations, 1);
        let cancelled = abort(&operations, KEY);
        operations.wait(KEY);
        begin(&operations, KEY, &second).unwrap();
        if cancelled == 0 {
            // The worker has had its one.
            abort(&operations, KEY);
        }
        operations.wait(KEY);
        worker.join().unwrap();
        assert_eq!((first.ends.load(Relaxed), second.ends.load(Relaxed)), (1, 1));
        assert_eq!(
            (first.read(), second.read()),
            if cancelled == 1 { (ABORTED, PERFORMED) } else { (PERFORMED, ABORTED) }
        );
    });
}
