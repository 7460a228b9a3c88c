//! Rules that say `open`, from an accepted connection on. What is inside of one is `open::tests`'s to test.

use std::{io, net::SocketAddr, path::Path, sync::Arc, time::Duration};

use rustls::RootCertStore;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream},
    sync::mpsc,
    time::timeout,
};

use super::super::{
    Options, Service,
    route::{Route, Routes},
};
use crate::{
    Inspection, Report,
    ca::Authority,
    channel,
    open::{Event, OpenReport, Opener, Why},
    rules::{Action, Host, Rules},
};

#[tokio::test]
async fn where_there_is_no_authority_nothing_passes() {
    let origin = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let inspection = Inspection::new(rules("[default]\naction = \"open\"\n"), None);
    let (mut client, mut reports) = serve(origin.local_addr().unwrap(), inspection).await;
    client.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    assert_eq!(end(&mut client).await, io::ErrorKind::ConnectionReset);
    let Some(Report::Flow(flow)) = reports.recv().await else { panic!() };
    assert_eq!(flow.action, Action::Open);
    let Some(Report::Refused { error, .. }) = reports.recv().await else { panic!() };
    assert!(error.to_string().contains("no authority"), "{error}");
}

#[tokio::test]
async fn what_cannot_be_read_passes_or_does_not_as_the_rule_says() {
    for (unread, passes) in [("pass", true), ("block", false)] {
        let origin = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let text = format!("[default]\naction = \"open\"\nunread = \"{unread}\"\n");
        let inspection = Inspection::new(rules(&text), None);
        let folder = tempfile::tempdir().unwrap();
        let authority = Arc::new(Authority::open_or_create(&folder.path().join("ca")).unwrap());
        let mut roots = RootCertStore::empty();
        roots.add(authority.certificate().der().clone()).unwrap();
        inspection.open_with(Arc::new(Opener::new(authority, roots).unwrap()));
        let (mut client, mut reports) = serve(origin.local_addr().unwrap(), inspection).await;
        client.write_all(b"SSH-2.0-client\r\n").await.unwrap();
        if passes {
            let (mut server, _) = origin.accept().await.unwrap();
            let mut banner = [0; 16];
            server.read_exact(&mut banner).await.unwrap();
            assert_eq!(&banner, b"SSH-2.0-client\r\n");
        } else {
            assert_eq!(end(&mut client).await, io::ErrorKind::ConnectionReset);
        }
        // Each of them once.
        let mut said = Vec::new();
        for _ in 0..2 {
            match timeout(Duration::from_secs(30), reports.recv()).await.unwrap().unwrap() {
                Report::Flow(flow) => said.push(format!("{:?}", flow.action)),
                Report::Open(report) => {
                    let OpenReport { event, .. } = *report;
                    assert_eq!(event, Event::Unread { why: Why::Unknown, passed: passes });
                    said.push("Unread".into());
                }
                report => panic!("{report:?}"),
            }
        }
        assert_eq!(said, ["Open", "Unread"]);
    }
}

/// A client's connection to a service, all flows of which go to one place.
async fn serve(to: SocketAddr, inspection: Inspection) -> (TcpStream, mpsc::Receiver<Report>) {
    let service = Service::bind(&["127.0.0.1:0".parse().unwrap()], Options::default()).unwrap();
    let address = service.addresses().unwrap()[0];
    let (reporter, reports) = channel(100);
    let service = service.inspecting(Arc::new(inspection));
    tokio::spawn(service.run_with(Fixed(to), reporter, std::future::pending()));
    (TcpStream::connect(address).await.unwrap(), reports)
}

async fn end(client: &mut TcpStream) -> io::ErrorKind {
    let read = timeout(Duration::from_secs(30), client.read(&mut [0; 100])).await.expect("no end in 30 s");
    read.expect_err("a reset").kind()
}

fn rules(text: &str) -> Rules {
    Rules::parse(text, Path::new("rules.toml"), &NoHost).unwrap()
}

struct NoHost;

impl Host for NoHost {
    fn read(&self, _: &Path) -> io::Result<String> {
        Err(io::ErrorKind::NotFound.into())
    }

    fn uid(&self, _: &str) -> io::Result<Option<u32>> {
        Ok(None)
    }
}

struct Fixed(SocketAddr);

impl Routes for Fixed {
    fn route(&self, _: &TcpStream) -> Result<Route, carnet::Error> {
        Ok(Route { flow_id: 7, depth: 1, destination: self.0 })
    }

    fn carry(&self, _: &TcpStream, _: &TcpSocket) -> Result<(), carnet::Error> {
        Ok(())
    }
}
