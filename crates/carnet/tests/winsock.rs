//! Overlapped operations by the safe calls, where no engine answers: one source for both systems. Under Wine the event of
//! such an operation is never signalled, and everything here ends all the same.
#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::{
    cell::RefCell,
    collections::BTreeMap,
    net::{TcpListener, TcpStream},
    rc::Rc,
    thread,
    time::Duration,
};

use carnet::winsock::{
    Code, CompletionQueue, IoctlError, Operation, Outcome, Request, WSA_OPERATION_ABORTED, WSAEOPNOTSUPP, begin_with,
    ioctl, wait_alertable,
};

const LIMIT: Duration = Duration::from_secs(20);

#[test]
fn at_once() {
    let (socket, _peer) = connected();
    let refused = |code, input: &[u8], output: &mut [u8]| ioctl(&socket, code, input, output).unwrap_err();

    for size in [0, 1, 528, 8192] {
        let mut output = vec![7; size];
        for code in [Code::QueryRecords, Code::QueryContext] {
            assert_eq!(answer(refused(code, &[], &mut output)), (WSAEOPNOTSUPP, None));
        }
        assert_eq!(output, vec![7; size], "nothing is put out");
    }
    assert_eq!(answer(refused(Code::SetRecords, &[1; 528], &mut [])), (WSAEOPNOTSUPP, None));
}

#[test]
fn waited_for() {
    let (socket, _peer) = connected();
    for request in [Request::query_records(528), Request::query_context(64), Request::set_records(vec![3; 528])] {
        let outcome = Operation::begin(&socket, request.clone()).unwrap().wait();
        assert_eq!(answer(outcome.result.unwrap_err()), (WSAEOPNOTSUPP, None), "{request:?}");
        assert_eq!(
            Operation::begin(&socket, request.clone()).unwrap().wait_timeout(LIMIT).unwrap().buffer,
            outcome.buffer
        );
    }
}

#[test]
fn a_buffer_comes_back_as_it_was() {
    let (socket, _peer) = connected();
    let records: Vec<u8> = (0..=255).collect();
    let outcome = Operation::begin(&socket, Request::set_records(records.clone())).unwrap().wait();
    assert_eq!(outcome.buffer, records);
}

#[test]
fn dropped_or_its_socket_closed_while_it_is_pending() {
    for _ in 0..200 {
        let (socket, _peer) = connected();
        let (dropped, kept) = (begin(&socket), begin(&socket));
        drop(dropped);
        drop(socket);
        let error = kept.wait().result.unwrap_err().number();
        assert!([WSAEOPNOTSUPP, WSA_OPERATION_ABORTED].contains(&error), "{error}");
    }
}

#[test]
fn cancelled_it_ends() {
    let (socket, _peer) = connected();
    for _ in 0..200 {
        let operation = begin(&socket);
        let cancelled = operation.cancel();
        let error = operation.wait().result.unwrap_err().number();
        assert_eq!(error, if cancelled { WSA_OPERATION_ABORTED } else { WSAEOPNOTSUPP });
    }
}

#[test]
fn a_routine_runs_once_in_its_own_thread() {
    let (socket, _peer) = connected();
    let ends: Rc<RefCell<Vec<Outcome>>> = Rc::default();
    for size in 1..=50 {
        let ends = Rc::clone(&ends);
        begin_with(&socket, Request::query_records(size), move |outcome| ends.borrow_mut().push(outcome)).unwrap();
    }
    while ends.borrow().len() < 50 {
        assert!(wait_alertable(LIMIT), "{} routines have run", ends.borrow().len());
    }
    assert!(!wait_alertable(Duration::ZERO));
    let sizes: Vec<usize> = ends.borrow().iter().map(|outcome| outcome.buffer.len()).collect();
    assert_eq!(sizes, (1..=50).collect::<Vec<_>>(), "in the order in which they began");
}

/// Several threads begin, and several take the ends.
#[test]
fn a_queue_has_every_end_once() {
    const SOCKETS: usize = 4;
    const EACH: usize = 100;
    let queue = CompletionQueue::new().unwrap();
    let sockets: Vec<_> = (0..SOCKETS).map(|_| connected()).collect();
    let keys = thread::scope(|scope| {
        for (key, (socket, _)) in sockets.iter().enumerate() {
            let attached = queue.attach(socket, key).unwrap();
            scope.spawn(move || (0..EACH).for_each(|_| attached.begin(Request::query_records(key)).unwrap()));
        }
        let takers = [(); 2].map(|()| {
            scope.spawn(|| {
                let take = |_| {
                    let completion = queue.next(Some(LIMIT)).unwrap().expect("an end");
                    assert_eq!(completion.outcome.buffer.len(), completion.key, "the key is its socket's");
                    completion.key
                };
                (0..SOCKETS * EACH / 2).map(take).collect::<Vec<_>>()
            })
        });
        takers.map(|taker| taker.join().unwrap()).concat()
    });
    let mut counts = BTreeMap::new();
    keys.into_iter().for_each(|key| *counts.entry(key).or_insert(0) += 1);
    assert_eq!(counts, (0..SOCKETS).map(|key| (key, EACH)).collect());
    assert_eq!(queue.next(Some(Duration::ZERO)), Ok(None));
}

#[test]
fn a_queue_that_is_dropped_takes_what_is_pending_with_it() {
    let (socket, _peer) = connected();
    let queue = CompletionQueue::new().unwrap();
    let attached = queue.attach(&socket, 0).unwrap();
    (0..50).for_each(|_| attached.begin(Request::query_records(640)).unwrap());
    assert_eq!(queue.attach(&socket, 1).unwrap_err().number(), 87, "a socket has one queue");
    drop(queue);
}

/// The queue hears of what was begun for it, and of nothing else on the same socket.
#[test]
fn an_operation_of_its_own_is_not_the_queues() {
    let (socket, _peer) = connected();
    let queue = CompletionQueue::new().unwrap();
    let attached = queue.attach(&socket, 0).unwrap();
    for size in 0..300 {
        begin(&socket).wait();
        attached.begin(Request::query_records(size)).unwrap();
        let outcome = queue.next(Some(LIMIT)).unwrap().expect("an end").outcome;
        assert_eq!((outcome.result.unwrap_err().number(), outcome.buffer.len()), (WSAEOPNOTSUPP, size));
    }
}

/// Code that runs when its thread's variables are gone already.
#[test]
fn a_thread_that_is_ending_may_ask() {
    struct AsksAtTheEnd;
    impl Drop for AsksAtTheEnd {
        fn drop(&mut self) {
            let (socket, _peer) = connected();
            ioctl(&socket, Code::QueryRecords, &[], &mut [0; 640]).unwrap_err();
            // Begun or refused: it returns.
            drop(Operation::begin(&socket, Request::query_records(640)));
        }
    }
    thread_local!(static LAST: AsksAtTheEnd = const { AsksAtTheEnd });

    let thread = thread::spawn(|| {
        LAST.with(|_| ());
        let (socket, _peer) = connected();
        begin(&socket).wait();
    });
    thread.join().unwrap();
}

#[cfg(target_os = "linux")]
mod linux {
    use std::{net::UdpSocket, os::unix::net::UnixStream};

    use carnet::winsock::{WSAEINVAL, WSAENOPROTOOPT};

    use super::*;

    #[test]
    fn sockets_of_other_kinds() {
        let datagram = UdpSocket::bind("127.0.0.1:0").unwrap();
        let (local, _peer) = UnixStream::pair().unwrap();
        let query = |result: Result<usize, IoctlError>| result.unwrap_err().number();
        assert_eq!(query(ioctl(&datagram, Code::QueryRecords, &[], &mut [0; 640])), WSAENOPROTOOPT);
        assert_eq!(query(ioctl(&local, Code::QueryContext, &[], &mut [0; 640])), WSAENOPROTOOPT);
        assert_eq!(query(ioctl(&datagram, Code::SetRecords, &[0; 528], &mut [])), WSAEINVAL);
        assert_eq!(query(ioctl(&local, Code::SetRecords, &[0; 528], &mut [])), WSAEINVAL);
    }

    #[cfg(feature = "tokio")]
    #[tokio::test]
    async fn ends_are_awaited() {
        let (socket, _peer) = connected();
        let completions = carnet::tokio::Completions::new(CompletionQueue::new().unwrap()).unwrap();
        let attached = completions.queue().attach(&socket, 9).unwrap();
        for size in 0..100 {
            attached.begin(Request::query_records(size)).unwrap();
        }
        for size in 0..100 {
            let completion = completions.next().await.unwrap();
            assert_eq!((completion.key, completion.outcome.buffer.len()), (9, size));
        }
    }
}

fn connected() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (accepted, _) = listener.accept().unwrap();
    (accepted, client)
}

fn begin(socket: &TcpStream) -> Operation {
    Operation::begin(socket, Request::query_records(640)).unwrap()
}

fn answer(error: IoctlError) -> (i32, Option<usize>) {
    (error.number(), error.needed())
}
