//! The ioctls by their safe calls, where an engine answers. Every rule of the raw calls is a case of the contract suite.
#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::cell::RefCell;
use std::net::TcpStream;
use std::rc::Rc;
use std::time::Duration;

use carnet::Redirect;
use carnet::winsock::{
    Code, CompletionQueue, ERROR_INSUFFICIENT_BUFFER, FWP_E_NOT_FOUND, Operation, Outcome, Request, WSAEACCES,
    WSAEINVAL, begin_with, ioctl, wait_alertable,
};
use carnet_e2e::sockets::{accept, connect_on, is_idle, listen, stream, until};
use carnet_e2e::{Sandbox, Scene, Service, raw};
use carnet_policy::{Action, Service as Kind};
use socket2::Socket;

const LIMIT: Duration = Duration::from_secs(20);
/// The longest chain in the tests.
const CHAIN: usize = 8;
/// What is in memory that nothing was put into.
const FILL: u8 = 0xA5;

/// Asks and sets by each way in which an end is told; the record is good by every one of them.
#[test]
fn a_record_is_carried_by_each_way() {
    for (name, perform) in WAYS {
        let scene = Scene::new();
        let asked = perform(&Socket::from(scene.accepted.try_clone().unwrap()), Request::query_records(8192));
        assert_eq!((asked.result, asked.buffer.len()), (Ok(528), 528), "{name}");

        let socket = scene.socket();
        let set = scene.sandbox.in_service(0, || perform(&socket, Request::set_records(asked.buffer.clone())));
        assert_eq!((set.result, set.buffer), (Ok(0), asked.buffer), "{name}");
        let before = Redirect::of(&scene.accepted).flow().unwrap();
        scene.assert_goes_on(socket, &before);
    }
}

/// Chains of one to eight services: however many a flow has had, a service asks, sets and goes on in the same way.
#[test]
fn the_size_is_the_same_at_every_hop() {
    let mut sandbox = Sandbox::new();
    let server = listen("127.0.0.1:0");
    let destination = server.local_addr().unwrap();
    let services: Vec<Service> = (0..CHAIN).map(|_| sandbox.service(Kind::Aware)).collect();
    let contexts: Vec<Vec<u8>> = (0..CHAIN).map(|hop| vec![hop as u8; 8 + hop]).collect();
    for (provider, context) in sandbox.policy.providers.iter_mut().zip(&contexts) {
        provider.filters[0].action = Action::Redirect { context: context.clone() };
    }
    sandbox.apply();

    let (client, mut accepted) = sandbox.arrive(&services[0], destination);
    let mut held = vec![client];
    for (hop, context) in contexts.iter().enumerate() {
        assert_eq!(Redirect::of(&accepted).flow().unwrap().depth(), hop + 1);
        assert_eq!(asked_by_every_size(&accepted, Code::QueryContext, context.len()), *context);
        let record = asked_by_every_size(&accepted, Code::QueryRecords, 528);

        let longer = [&record[..], &[0]].concat();
        let onward = sandbox.in_service(hop, || {
            let socket = stream(destination);
            for (blob, result) in [(&record[..527], Err(WSAEINVAL)), (&longer, Err(WSAEINVAL)), (&record, Ok(0))] {
                let set = ioctl(&socket, Code::SetRecords, blob, &mut []);
                assert_eq!(set.map_err(|error| error.number()), result, "{} bytes at hop {}", blob.len(), hop + 1);
            }
            connect_on(socket, &destination.into()).expect("connect")
        });
        let next = services.get(hop + 1).map_or(&server, |service| &service.listeners[0]);
        held.extend([std::mem::replace(&mut accepted, accept(next)), onward]);
    }
    assert_eq!(accepted.peer_addr().unwrap(), held.last().unwrap().local_addr().unwrap(), "from the last service");
    assert!(services.iter().flat_map(|service| &service.listeners).all(is_idle), "each service had it once");
}

/// The answer, which has `need` bytes.
fn asked_by_every_size(socket: &TcpStream, code: Code, need: usize) -> Vec<u8> {
    for size in [0, 1, 3, 4, need - 1] {
        let mut buffer = vec![FILL; size];
        let error = ioctl(socket, code, &[], &mut buffer).unwrap_err();
        assert_eq!(
            (error.number(), error.needed()),
            (ERROR_INSUFFICIENT_BUFFER as i32, Some(need)),
            "{code:?}: {size}"
        );
        assert_eq!(buffer, vec![FILL; size], "{code:?}: nothing is put out");
    }
    let answers = [need, need + 1, 64 << 10].map(|size| {
        let mut buffer = vec![FILL; size];
        assert_eq!(ioctl(socket, code, &[], &mut buffer), Ok(need), "{code:?}: {size}");
        assert!(buffer[need..].iter().all(|&byte| byte == FILL), "{code:?}: nothing is put out behind it");
        buffer[..need].to_vec()
    });
    let [_, _, last] = answers;
    last
}

#[test]
fn refusals_come_by_each_way() {
    for (name, perform) in WAYS {
        let scene = Scene::new();
        let accepted = Socket::from(scene.accepted.try_clone().unwrap());
        let error = |outcome: Outcome| outcome.result.unwrap_err();

        let small = perform(&accepted, Request::query_records(527));
        assert_eq!(small.buffer, vec![0; 527], "{name}: nothing is put out");
        assert_eq!(error(small).needed(), Some(528), "{name}");
        assert_eq!(error(perform(&accepted, Request::query_context(64))).number(), FWP_E_NOT_FOUND, "{name}");

        let (blob, socket) = (scene.blob(), scene.socket());
        let strange = scene.sandbox.in_service(1, || perform(&socket, Request::set_records(blob.clone())));
        assert_eq!(error(strange).number(), WSAEACCES, "{name}: the newest redirect was to the other service");
        let cut = scene.sandbox.in_service(0, || perform(&socket, Request::set_records(blob[..527].to_vec())));
        assert_eq!(error(cut).number(), WSAEINVAL, "{name}");
        scene.assert_goes_on_as_nothing(socket);
    }
}

#[test]
fn an_answer_outlives_its_socket() {
    let scene = Scene::new();
    let operation = Operation::begin(&scene.accepted, Request::query_records(528)).unwrap();
    until("the operation to end", || operation.is_finished().then_some(()));
    let Scene { accepted, .. } = scene;
    drop(accepted);
    assert_eq!(operation.wait().result, Ok(528));
}

/// A socket which takes no overlapped operations answers at once, whoever was to be told.
#[test]
fn a_socket_without_the_attribute_answers_at_once() {
    let scene = Scene::new();
    let before = Redirect::of(&scene.accepted).flow().unwrap();
    let new = || scene.sandbox.in_service(0, raw::socket_without_overlapped);
    let set = || Request::set_records(scene.blob());
    let queue = CompletionQueue::new().unwrap();
    let begins: [(&str, Begin<'_>); 3] = [
        ("operation", &|socket| Operation::begin(socket, set()).map(drop).unwrap_err()),
        ("routine", &|socket| begin_with(socket, set(), |_| panic!("a routine of nothing")).unwrap_err()),
        ("queue", &|socket| queue.attach(socket, 0).unwrap().begin(set()).unwrap_err()),
    ];
    for (name, begin) in begins {
        let socket = new();
        assert_eq!(scene.sandbox.in_service(0, || begin(&socket)).result, Ok(0), "{name}");
        scene.assert_goes_on(socket, &before);
    }
    assert!(!wait_alertable(Duration::ZERO));
    assert_eq!(queue.next(Some(Duration::ZERO)), Ok(None));
}

#[test]
fn records_are_awaited() {
    let scene = Scene::new();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
    let completion = runtime.block_on(async {
        let completions = carnet::tokio::Completions::new(CompletionQueue::new().unwrap()).unwrap();
        let attached = completions.queue().attach(&scene.accepted, 7).unwrap();
        attached.begin(Request::query_records(640)).unwrap();
        completions.next().await.unwrap()
    });
    assert_eq!((completion.key, completion.outcome.result, completion.outcome.buffer.len()), (7, Ok(528), 528));
}

type Perform = fn(&Socket, Request) -> Outcome;
type Begin<'a> = &'a dyn Fn(&Socket) -> Outcome;

const WAYS: [(&str, Perform); 4] =
    [("at once", at_once), ("operation", by_operation), ("routine", by_routine), ("queue", by_queue)];

fn at_once(socket: &Socket, request: Request) -> Outcome {
    let (code, mut buffer) = request.into_parts();
    let result = match code {
        Code::SetRecords => ioctl(socket, code, &buffer, &mut []),
        Code::QueryRecords | Code::QueryContext => ioctl(socket, code, &[], &mut buffer),
    };
    if let (Ok(length), false) = (&result, code == Code::SetRecords) {
        buffer.truncate(*length);
    }
    Outcome { result, buffer }
}

fn by_operation(socket: &Socket, request: Request) -> Outcome {
    Operation::begin(socket, request).unwrap().wait()
}

fn by_routine(socket: &Socket, request: Request) -> Outcome {
    let end = Rc::new(RefCell::new(None));
    let told = Rc::clone(&end);
    begin_with(socket, request, move |outcome| *told.borrow_mut() = Some(outcome)).unwrap();
    assert!(wait_alertable(LIMIT), "the routine has not run");
    end.take().unwrap()
}

fn by_queue(socket: &Socket, request: Request) -> Outcome {
    let queue = CompletionQueue::new().unwrap();
    queue.attach(socket, 1).unwrap().begin(request).unwrap();
    queue.next(Some(LIMIT)).unwrap().expect("an end").outcome
}
