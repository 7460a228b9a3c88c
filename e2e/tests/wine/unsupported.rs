//! What happens where nobody answers the three codes: as on a Windows that does not know them.

use carnet_e2e::command::{carnet_run, finish};
use carnet_e2e::netns;
use carnet_e2e::origin::Origin;
use carnet_e2e::programs::CURL_GOT_NOTHING;

use crate::service::Service::{Python, Windows};
use crate::service::{Library, Services};

/// Without an answer the service has no destination. It closes the connection and says why; nothing is dialled, so nothing
/// goes round, and no service after it hears of the flow.
#[test]
fn without_the_shim_the_service_closes_and_says_why() {
    let services = Services::build(Library::Plain);
    let chain = services.chain(&[Windows, Python]);
    netns::alone(|| {
        let origin = Origin::http("127.0.0.1:0");
        let curl = ["curl", "-s", "--max-time", "10", &format!("http://{}/", origin.address)].map(str::to_owned);
        let (ended, log) = chain.run(&curl);
        assert!(CURL_GOT_NOTHING.contains(&ended.code), "{ended:?}");
        let [flow] = &log.flows[..] else { panic!("one flow: {log:#?}") };
        assert_eq!((flow.destination(), flow.chain()), (origin.address, vec![("windows-service", false)]));
        assert_eq!(origin.served(), []);
        let said: Vec<_> = ended.errors.lines().filter(|line| line.starts_with("[windows-service] ")).collect();
        let [line] = said[..] else { panic!("one line: {said:#?}") };
        assert!(line.contains("] service: connection closed: WSAIoctl SIO_QUERY_WFP_CONNECTION_REDIRECT_"), "{line}");
        // WSAEOPNOTSUPP.
        assert!(line.contains("nothing answers on this socket") && line.contains("os error 10045"), "{line}");
    });
}

/// Else a test could pass with Wine's answers.
#[test]
fn a_program_that_the_shim_cannot_answer_does_not_start() {
    let services = Services::build(Library::Shim);
    let through = services.windows(&services.compile("client.c"), 0);
    let ended = finish(&mut carnet_run(&["--through", &through, "--", "echo", "started"]));
    assert_eq!((ended.code, &ended.output[..]), (3, ""), "{ended:?}");
    assert!(ended.errors.contains("before it listened"), "{ended:?}");
    assert!(ended.errors.contains("| shim: the program does not import WSAIoctl"), "{ended:?}");
}
