//! What a Windows program is answered by the shim, question by question.

use carnet_e2e::command::{Run, turn};
use carnet_e2e::sockets::{connect, until};
use carnet_e2e::{Sandbox, netns};
use carnet_policy::{Action, Service as Kind};

use crate::service::{Library, Services};

#[test]
fn the_three_codes_answer_with_winsocks_numbers_and_sizes() {
    let _turn = turn();
    with_the_program(|run| {
        // Nobody listens there, and nobody needs to: the program closes every connection.
        let _client = run.in_app(|| connect(([127, 0, 0, 1], 9).into())).unwrap();
        let answers = until("the last answer", || Some(said(run)).filter(|lines| lines.contains(&"over".to_owned())));
        // The first line says where it listens.
        assert_eq!(answers[1..], EXPECTED);
    });
}

/// In Carnet's own form: the magic, the flow, and what the filter gives.
#[test]
fn a_filters_bytes_follow_the_flow_in_the_context() {
    let services = Services::build(Library::Shim);
    let program = services.prepare(&services.compile("answers.c"), 0).join("windows-service");
    netns::alone(|| {
        let mut sandbox = Sandbox::new();
        let mut service = sandbox.relay(program.to_str().unwrap(), Kind::Aware, &["0"]);
        sandbox.policy.providers[0].filters[0].action = Action::Redirect { context: b"of the filter".to_vec() };
        sandbox.apply();
        let _client = sandbox.in_app(|| connect(([127, 0, 0, 1], 9).into())).unwrap();
        let mut answers = vec![service.process.line()];
        assert_eq!(answers[0], EXPECTED[0]);
        while answers.last().is_none_or(|answer| answer != "over") {
            answers.push(service.process.line());
        }
        answers.retain(|answer| !EXPECTED.contains(&&answer[..]));
        let with_its_bytes =
            ["context into too little: 122 453", "context: 0 453", "the filter's bytes: of the filter"];
        assert_eq!(answers, with_its_bytes);
    });
}

/// On Windows a record that is lost is no more than that: the number is that of a socket which cannot have one.
#[test]
fn a_connection_from_outside_the_run_has_no_record() {
    with_the_program(|run| {
        let listens = until("where it listens", || said(run).into_iter().next());
        let _client = connect(listens.split(' ').next().unwrap().parse().unwrap()).unwrap();
        // WSAEINVAL, and no bytes.
        assert_eq!(until("its answer", || said(run).into_iter().nth(1)), "no record: 10022 0");
    });
}

/// `answers.c` as the only service of a run, whose command waits.
fn with_the_program(act: impl FnOnce(&Run) + Send) {
    let services = Services::build(Library::Shim);
    let through = services.windows(&services.compile("answers.c"), 0);
    netns::alone(|| {
        let mut run = Run::idle(&["--verbose", "--through", &through]);
        act(&run);
        run.close_input();
        assert_eq!(run.end().code, 0);
    });
}

/// The program's lines until now.
fn said(run: &Run) -> Vec<String> {
    run.errors().lines().filter_map(|line| line.strip_prefix("[windows-service] ").map(str::to_owned)).collect()
}

/// A record has 528 bytes, and a context 8 more than the flow's 432 where the filter gives no bytes of its own.
const EXPECTED: [&str; 42] = [
    "records into nothing: 122 528",
    "records, one byte too few: 122 528",
    "records: 0 528",
    "records into more: 0 528",
    "records without a buffer: 10014 0",
    "records into memory that is not there: 10014 0",
    "records with an input: 10022 0",
    "context into too little: 122 440",
    "context: 0 440",
    "its beginning: CARNETF1",
    "the filter's bytes:",
    "a code nobody has: 10045 0",
    "records, and nowhere to say how many: 10014",
    "with an event: 0, signalled 1",
    "its result: 0 528",
    "with a routine: 0, run 0 times",
    "in an alertable wait: 1, run 1 times: 0 528",
    "an OVERLAPPED that is not there: 10014 0",
    "overlapped, into too little: 122 528, signalled 0, Internal c0000023",
    "with an event that is closed: 6 0, Internal 4711",
    "records, the last time: 0 528",
    "set of nothing: 10022 0",
    "set of nothing, and a size: 10014 0",
    "set of memory that is not there: 10014 0",
    "set of a byte too few: 10022 0",
    "set with an output: 10022 0",
    "set of a changed record: 10022 0",
    "set on the accepted socket: 10056 0",
    "set: 0 0",
    "set once more: 0 0",
    "records of the socket with a record: 10057 0",
    "set on a closed socket: 10038 0",
    "set where nothing is overlapped: 0 0, signalled 0",
    "and nowhere to say how many: 10014",
    "records of the listener: 10057 0",
    "set on the listener: 10022 0",
    "records of a new socket: 10057 0",
    "records of a datagram socket: 10042 0",
    "set on a datagram socket: 10022 0",
    "records of standard output: 10038 0",
    "context of no socket: 10038 0",
    "over",
];
