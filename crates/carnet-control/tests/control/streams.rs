//! Lines as they come.

use std::time::Duration;

use carnet_control::{Event, EventLine, FlowLine, Limits};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::UnixStream,
};

use crate::{
    memory::{event, flow},
    scene::{Scene, soon},
};

#[tokio::test]
async fn flows_are_those_that_are_open_and_then_those_that_end() {
    let scene = Scene::new();
    scene.backend.state(|state| state.open = vec![flow(1)]);
    let mut lines = scene.client().await.flows(true).await.unwrap();
    assert_eq!(soon("a line", lines.next()).await.unwrap(), Some(FlowLine::Flow(flow(1).into())));
    scene.backend.flows.send(FlowLine::Flow(flow(2).into()).into()).unwrap();
    assert_eq!(soon("a line", lines.next()).await.unwrap(), Some(FlowLine::Flow(flow(2).into())));
    let warning = FlowLine::Warning { message: "mind the gap".into() };
    scene.backend.flows.send(warning.clone().into()).unwrap();
    assert_eq!(soon("a line", lines.next()).await.unwrap(), Some(warning));

    drop(lines);
    scene.until("the end of the stream", |backend| backend.flows.receiver_count() == 0).await;
}

#[tokio::test]
async fn events_are_told_to_all() {
    let scene = Scene::new();
    let client = scene.client().await;
    let mut both = [client.events().await.unwrap(), client.events().await.unwrap()];
    scene.backend.events.send(event("first").into()).unwrap();
    for lines in &mut both {
        assert_eq!(soon("a line", lines.next()).await.unwrap(), Some(EventLine::Event(event("first"))));
    }
}

#[tokio::test]
async fn a_slow_reader_is_told_how_much_it_lost_and_goes_on() {
    let write_timeout = Duration::from_millis(50);
    let scene = Scene::with_limits(Limits { write_timeout, ..Limits::default() });
    let mut stream = UnixStream::connect(scene.socket()).await.unwrap();
    stream.write_all(b"GET /v1/events HTTP/1.0\r\n\r\n").await.unwrap();
    scene.until("the subscription", |backend| backend.events.receiver_count() == 1).await;
    // More than sockets and queues hold, so that the rest is lost whatever their sizes are.
    let count = 20_000;
    let long = "x".repeat(1000);
    for number in 0..count {
        scene.backend.events.send(Event { state: None, ..event(&format!("{number} {long}")) }.into()).unwrap();
        if number % 100 == 0 {
            tokio::task::yield_now().await;
        }
    }
    // Answers that are no streams would be given up now.
    tokio::time::sleep(3 * write_timeout).await;
    let mut lines = BufReader::new(stream).lines();
    let (mut next, mut lost_in_all) = (0, 0);
    while next < count {
        let text = soon("a line", lines.next_line()).await.unwrap().unwrap();
        match serde_json::from_str(&text) {
            Ok(EventLine::Event(event)) => {
                assert_eq!(event.message, format!("{next} {long}"), "none is lost without being told");
                next += 1;
            }
            Ok(EventLine::Lost { lost }) => {
                assert!(text.contains(&format!("\"lost\":{lost}")));
                lost_in_all += lost;
                next += lost;
            }
            Ok(line) => panic!("{line:?}"),
            Err(_) => assert_eq!(next, 0, "only the head is no line: {text}"),
        }
    }
    assert!(lost_in_all > 0);
    scene.backend.events.send(event("at last").into()).unwrap();
    let text = soon("a line", lines.next_line()).await.unwrap().unwrap();
    assert_eq!(serde_json::from_str::<EventLine>(&text).unwrap(), EventLine::Event(event("at last")));
}

#[tokio::test]
async fn a_stream_says_that_the_server_ends() {
    let mut scene = Scene::new();
    let mut lines = scene.client().await.events().await.unwrap();
    scene.stop().await;
    assert!(matches!(soon("a line", lines.next()).await.unwrap(), Some(EventLine::Closing { .. })));
    assert_eq!(soon("the end", lines.next()).await.unwrap(), None);
}
