use std::io::{Read, Write};

use carnet_e2e::sockets::{accept, assert_joined, listen, until};
use nix::sys::signal::Signal;

use crate::site::Site;

/// A rule on a name needs what the client says first, and an SSH or SMTP client says nothing before the server has.
#[test]
fn a_server_that_speaks_first_is_not_waited_for() {
    let rules = "[[rule]]\nname = \"ads.example\"\naction = \"block\"\n";
    Site::with(rules, &[], |mut site| {
        let server = listen("127.0.0.1:0");
        let mut client = site.connect_to(server.local_addr().unwrap());
        let mut accepted = accept(&server);
        accepted.write_all(b"220 mail.example\r\n").unwrap();
        let mut banner = [0; 18];
        client.read_exact(&mut banner).unwrap();
        assert_eq!(&banner, b"220 mail.example\r\n");
        assert_joined(&mut client, &mut accepted);
        drop((client, accepted));
        let flow = site.said("flow");
        assert_eq!((&flow["action"], flow["protocol"].is_null()), (&"allow".into(), true), "{flow}");
    });
}

#[test]
fn it_ends_when_its_flows_have() {
    Site::with("", &["--drain", "60"], |mut site| {
        let server = listen("127.0.0.1:0");
        let mut client = site.connect_to(server.local_addr().unwrap());
        let mut accepted = accept(&server);
        site.signal(Signal::SIGTERM);
        // It listens no more, and what is open goes on.
        until("the listener to go", || std::net::TcpStream::connect("127.0.0.1:15001").is_err().then_some(()));
        assert_joined(&mut client, &mut accepted);
        assert!(!site.proxy.has_ended());
        drop((client, accepted));
        let ended = site.said("ended");
        assert_eq!(ended["cut_off"], 0, "{ended}");
        until("its end", || site.proxy.has_ended().then_some(()));
    });
}

#[test]
fn flows_that_do_not_end_are_reset_in_the_end() {
    Site::with("", &["--drain", "0.2"], |mut site| {
        let server = listen("127.0.0.1:0");
        let mut client = site.connect_to(server.local_addr().unwrap());
        let accepted = accept(&server);
        site.signal(Signal::SIGTERM);
        let error = client.read(&mut [0]).expect_err("half an answer must not look like a whole one");
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
        assert_eq!(site.said("ended")["cut_off"], 1);
        drop(accepted);
    });
}
