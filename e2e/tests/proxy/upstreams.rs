use std::io::{Read, Write};
use std::thread;

use carnet::Redirect;
use carnet_e2e::sockets::{accept, listen};

use crate::site::Site;

#[test]
fn a_rule_sends_a_flow_through_an_upstream() {
    Site::with("", &[], |mut site| {
        let upstream = listen("127.0.0.1:0");
        let address = upstream.local_addr().unwrap();
        let rules = format!(
            "[upstream.far]\nkind = \"http-connect\"\naddress = \"{address}\"\n
             [[rule]]\nname = \"far.example\"\naction = \"allow\"\nupstream = \"far\"\n"
        );
        assert_eq!(site.reload(&rules)["in_force"], true);

        let proxy = thread::spawn(move || {
            let mut flow = accept(&upstream);
            // The flow has had its services: nobody has redirected this hop, or there would be a record.
            assert!(Redirect::of(&flow).flow().is_err());
            let asked = head(&mut flow);
            flow.write_all(b"HTTP/1.1 200 OK\r\n\r\n").unwrap();
            let request = head(&mut flow);
            flow.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").unwrap();
            (asked, request)
        });
        assert!(site.get("far.example").starts_with("HTTP/1.1 204 "));
        let (asked, request) = proxy.join().unwrap();
        assert!(asked.starts_with(&format!("CONNECT {} HTTP/1.1\r\n", site.origin.address)), "{asked}");
        assert!(request.contains("Host: far.example\r\n"), "{request}");
        assert!(site.get("near.example").starts_with("HTTP/1.1 200 "));
    });
}

fn head(stream: &mut impl Read) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    String::from_utf8(head).unwrap()
}
