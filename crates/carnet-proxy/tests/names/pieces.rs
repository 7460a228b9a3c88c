use carnet_proxy::Name;
use proptest::{collection::vec, prelude::*, sample};

use crate::{
    http2::CURL,
    made::{Hello, fields, frame, http2, in_records},
    name, read_at_once, read_in_pieces,
    ssh::OPENSSH,
    tls::{CLIENTS, agrees_with_rustls},
};

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn real_hellos_in_any_pieces(
        client in 0..CLIENTS.len(),
        records in vec(1..400_usize, 1..4),
        pieces in vec(1..200_usize, 1..20),
    ) {
        // Cut so finely, the longest hello would not be within the limit.
        let records: Vec<usize> = records.into_iter().chain([50]).collect();
        let client = &CLIENTS[client];
        let found = read_in_pieces(&in_records(&client.bytes[5..], &records), &pieces);
        prop_assert_eq!(&found, &read_at_once(client.bytes));
        prop_assert_eq!(found.and_then(|found| found.ja4), Some(client.ja4.to_owned()));
    }

    #[test]
    fn requests_in_any_pieces(
        name in "[a-z]{1,20}\\.example",
        fields in vec(("[A-Za-z]{1,9}", "[ -~]{0,40}"), 0..9),
        pieces in vec(1..60_usize, 1..20),
    ) {
        let mut request = "GET / HTTP/1.1\r\n".to_owned();
        for (field, value) in fields {
            request += &format!("X-{field}: {value}\r\n");
        }
        request += &format!("Host: {name}\r\n\r\nbody");
        let found = read_in_pieces(request.as_bytes(), &pieces).and_then(|found| found.name);
        prop_assert_eq!(found, Some(Name::Host(name)));
    }

    #[test]
    fn http2_in_any_frames_and_pieces(
        authority in "[a-z]{1,20}\\.example",
        more in vec(("[a-z]{1,9}", "[!-~]{0,40}"), 0..9),
        cuts in vec(any::<sample::Index>(), 0..5),
        pieces in vec(1..60_usize, 1..20),
    ) {
        let mut all = vec![(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", &authority)];
        let more: Vec<_> = more.iter().map(|(name, value)| (format!("x-{name}"), value)).collect();
        all.extend(more.iter().map(|(name, value)| (name.as_str(), value.as_str())));
        let header = fields(&all);
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(header.len())).chain([0, header.len()]).collect();
        cuts.sort_unstable();
        let mut bytes = http2();
        let last = cuts.len() - 2;
        for (index, cut) in cuts.windows(2).enumerate() {
            let (kind, flags) = (if index == 0 { 1 } else { 9 }, if index == last { 4 } else { 0 });
            bytes.extend(frame(kind, flags, 1, &header[cut[0]..cut[1]]));
        }
        let found = read_in_pieces(&bytes, &pieces);
        prop_assert_eq!(found.as_ref().and_then(name), Some(&*authority));
    }

    /// Also for what nobody should send: bytes changed, cut off, put in.
    #[test]
    fn pieces_make_no_difference(bytes in noise(), pieces in vec(1..300_usize, 1..20)) {
        let whole = read_at_once(&bytes);
        prop_assert_eq!(&read_in_pieces(&bytes, &pieces), &whole);
        prop_assert_eq!(&read_in_pieces(&bytes, &[1]), &whole);
        agrees_with_rustls(&bytes);
        if let Some(found) = &whole {
            let may_be_printed = |text: &String| text.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic());
            prop_assert!(found.alpn.iter().chain(&found.ja4).chain(&found.software).all(may_be_printed));
        }
    }
}

fn noise() -> impl Strategy<Value = Vec<u8>> {
    let others: [Vec<u8>; 5] = [
        b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n".to_vec(),
        b"PUT /x HTTP/1.0\nA: b\nHost:c\nHost: d\n\n".to_vec(),
        CURL.to_vec(),
        OPENSSH.to_vec(),
        in_records(&Hello::default().with_name("a.example").with(16, b"\x00\x03\x02h2").message(), &[20]),
    ];
    let real: Vec<_> = CLIENTS.iter().map(|client| client.bytes.to_vec()).chain(others).collect();
    let changes = vec((any::<sample::Index>(), any::<u8>(), 0..4_u8), 0..6);
    let changed = (sample::select(real), changes, vec(any::<u8>(), 0..50)).prop_map(|(mut bytes, changes, tail)| {
        for (index, byte, change) in changes {
            let index = index.index(bytes.len());
            match change {
                0 => bytes.insert(index, byte),
                1 if bytes.len() > 1 => drop(bytes.remove(index)),
                _ => bytes[index] = byte,
            }
        }
        bytes.extend(tail);
        bytes
    });
    let begin: [&[u8]; 5] = [b"\x16\x03\x01", b"GET ", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"SSH-", b""];
    let begun = (sample::select(begin.to_vec()), vec(any::<u8>(), 0..2000))
        .prop_map(|(begin, rest)| [begin, &rest[..]].concat());
    prop_oneof![changed, begun]
}
