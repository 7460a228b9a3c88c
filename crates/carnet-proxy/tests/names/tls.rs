use carnet_proxy::{Found, Name, NameReader, rules::Protocol};
use rustls::server::Acceptor;

use crate::{
    made::{Hello, in_records},
    name, read_at_once,
};

/// A real client's hello, and what is to be found in it.
pub struct Client {
    pub name: &'static str,
    pub bytes: &'static [u8],
    pub alpn: &'static [&'static str],
    pub ja4: &'static str,
}

/// Taken from the wire, or from the client itself: the first record which each sent. The fingerprints were made by a few
/// lines of Python, by the specification, from the fields which tshark 4.0 sees in them.
pub const CLIENTS: [Client; 6] = [
    Client {
        name: "curl.example",
        bytes: include_bytes!("../hello/curl.bin"),
        alpn: &["h2", "http/1.1"],
        ja4: "t13d3112h2_e8f1e7e78f70_b26ce05bbdd6",
    },
    Client {
        name: "go.example",
        bytes: include_bytes!("../hello/go.bin"),
        alpn: &[],
        ja4: "t13d190900_9dc949149365_97f8aa674fd9",
    },
    Client {
        name: "java.example",
        bytes: include_bytes!("../hello/java.bin"),
        alpn: &[],
        ja4: "t13d371200_db35923f8641_7c76daad20ec",
    },
    Client {
        name: "node.example",
        bytes: include_bytes!("../hello/node.bin"),
        alpn: &["h2", "http/1.1"],
        ja4: "t13d5911h2_a33745022dd6_1f22a2ca17c4",
    },
    Client {
        name: "post-quantum.example",
        bytes: include_bytes!("../hello/rustls-post-quantum.bin"),
        alpn: &["h2", "http/1.1"],
        ja4: "t13d1011h2_61a7ad8aa9b6_0d308c48d2a3",
    },
    Client {
        name: "outer.example",
        bytes: include_bytes!("../hello/rustls-ech.bin"),
        alpn: &["h2"],
        ja4: "t13d0911h2_f91f431d341e_c8ddf72c3365",
    },
];

#[test]
fn real_clients() {
    for Client { name, bytes, alpn, ja4 } in CLIENTS {
        let found = read_at_once(bytes).unwrap_or_else(|| panic!("nothing in the hello for {name}"));
        assert_eq!((found.protocol, found.name), (Protocol::Tls, Some(Name::Sni(name.into()))));
        assert_eq!(found.alpn, alpn, "{name}");
        assert_eq!(found.ja4.as_deref(), Some(ja4), "{name}");
        assert_eq!((found.ech, found.software), (name == "outer.example", None), "{name}");
    }
}

#[test]
fn a_post_quantum_hello_is_longer_than_a_segment() {
    let hello = CLIENTS[4].bytes;
    assert!(hello.len() > 1400, "{}", hello.len());
}

#[test]
fn a_hello_without_a_name_is_found_without_one() {
    let found = read_at_once(include_bytes!("../hello/openssl-without-name.bin")).unwrap();
    assert_eq!((found.protocol, found.name), (Protocol::Tls, None));
    assert_eq!(found.ja4.as_deref(), Some("t13i310900_e8f1e7e78f70_1f22a2ca17c4"));
}

#[test]
fn every_server_name_must_be_one_that_can_be_meant() {
    let long = "a".repeat(254);
    for (server_name, expected) in [
        ("example.org", Some("example.org")),
        ("EXAMPLE.org.", Some("example.org.")),
        ("192.0.2.7", Some("192.0.2.7")),
        (&long, Some(&*long)),
        ("", None),
        ("a b.example", None),
        ("\u{1b}[2J", None),
        ("a.example\0", None),
        ("[::1]", None),
    ] {
        let found = found(Hello::default().with_name(server_name));
        assert_eq!(name(&found), expected, "{server_name:?}");
        assert!(found.ja4.unwrap().starts_with("t12d"));
    }
    assert_eq!(found(Hello::default().with_name(&"a".repeat(255))).name, None);
}

#[test]
fn of_two_server_names_none_counts() {
    assert_eq!(found(Hello::default().with_name("a.example").with_name("b.example")).name, None);
    let two = b"\x00\x16\x00\x00\x08a.exampl\x00\x00\x08b.exampl";
    assert_eq!(found(Hello::default().with(0, two)).name, None);
    let of_another_kind = b"\x00\x0b\x01\x00\x08a.exampl";
    assert_eq!(found(Hello::default().with(0, of_another_kind)).name, None);
}

#[test]
fn an_encrypted_hello_is_seen_and_its_name_is_the_outer_one() {
    let found =
        found(Hello::default().with_name("outer.example").with(0xfe0d, b"\x00\x00\x01\x00\x01\x00\x00\x00\x00\x00"));
    assert_eq!((name(&found), found.ech), (Some("outer.example"), true));
}

#[test]
fn alpn_may_be_printed() {
    let found = found(Hello::default().with(16, b"\x00\x09\x02h2\x02\x1b\xff\x02\"'"));
    assert_eq!(found.alpn, ["h2", "\\x1b\\xff", "\\\"\\'"]);
}

/// rustls refuses these; another server need not.
#[test]
fn what_one_server_refuses_another_may_take() {
    let hello = Hello::default().with_name("a.example");
    let odd = [
        hello.clone().with(13, b"\x00\x00"),             // no algorithm
        hello.clone().with(43, b"\x03\x03\x04\x03"),     // cut off
        hello.clone().with(16, b"\x00\x01\x00"),         // a protocol without a name
        hello.clone().with(51, b"").with(51, b""),       // twice, and empty
        Hello { compression: vec![1], ..hello.clone() }, // not none
        Hello { ciphers: Vec::new(), ..hello.clone() },  // none at all
        Hello { version: 0x0300, ..hello.clone() },      // SSL 3.0
    ];
    for hello in odd {
        let found = found(hello.clone());
        assert_eq!(name(&found), Some("a.example"), "{hello:?}");
        assert!(found.ja4.is_some() && found.alpn.iter().all(String::is_empty), "{hello:?}");
    }
    assert!(found(Hello { ciphers: Vec::new(), ..Hello::default() }).ja4.unwrap().contains("_000000000000_"));
}

#[test]
fn a_hello_of_before_extensions() {
    let found = found(Hello { version: 0x0301, extensions: None, ..Hello::default() });
    assert_eq!((name(&found), found.alpn.len(), found.ech), (None, 0, false));
    let ja4 = found.ja4.unwrap();
    assert!(ja4.starts_with("t10i020000_") && ja4.ends_with("_000000000000"), "{ja4}");
}

#[test]
fn what_is_no_hello_is_left() {
    let whole = in_records(&Hello::default().with_name("a.example").message(), &[9000]);
    let changed = |index: usize, byte: u8| {
        let mut bytes = whole.clone();
        bytes[index] = byte;
        bytes
    };
    for (bytes, what) in [
        (changed(0, 23), "another record"),
        (changed(1, 2), "another major version"),
        (changed(3, 0x50), "a record that is too long"),
        (changed(5, 2), "another message"),
        (changed(6, 1), "a message beyond the limit"),
        (changed(whole.len() - 1, b' '), "\0"),
        (b"\x16\x03\x01\x00\x00".to_vec(), "an empty record"),
        ([&whole[..5], &[1, 0, 0, 2, 3, 3], &whole[11..]].concat(), "a message that is too short"),
    ] {
        let mut reader = NameReader::new();
        match (what, reader.read(&bytes)) {
            ("\0", found) => assert_eq!(found.unwrap().name, None, "a space in the name"),
            (_, found) => assert_eq!(found, None, "{what}"),
        }
        assert!(reader.is_done(), "{what}");
    }
}

/// What a server's own reader takes must be read alike.
#[test]
fn rustls_reads_the_same() {
    let made = Hello::default().with_name("Made.Example").with(13, b"\x00\x02\x04\x03").with(16, b"\x00\x03\x02h2");
    let made = in_records(&made.message(), &[7, 100]);
    for bytes in CLIENTS.iter().map(|client| client.bytes).chain([&made[..]]) {
        assert!(agrees_with_rustls(bytes));
    }
}

/// `false` where rustls reads no hello in them.
pub fn agrees_with_rustls(mut bytes: &[u8]) -> bool {
    let found = read_at_once(bytes);
    let mut acceptor = Acceptor::default();
    while !bytes.is_empty() {
        acceptor.read_tls(&mut bytes).unwrap();
        match acceptor.accept() {
            Ok(None) => {}
            Err(_) => return false,
            Ok(Some(accepted)) => {
                let hello = accepted.client_hello();
                let found = found.unwrap();
                let alpn = hello.alpn().into_iter().flatten().map(|protocol| protocol.escape_ascii().to_string());
                assert_eq!(found.alpn, alpn.collect::<Vec<_>>());
                if let Some(server_name) = hello.server_name() {
                    assert_eq!(name(&found), Some(&*server_name.to_ascii_lowercase()));
                }
                return true;
            }
        }
    }
    false
}

fn found(hello: Hello) -> Found {
    read_at_once(&in_records(&hello.message(), &[9000])).unwrap()
}
