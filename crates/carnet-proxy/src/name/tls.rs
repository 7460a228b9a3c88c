mod records;

use self::records::Records;
use super::{
    Found, Name, NameReader, Progress, authority,
    ja4::{Ja4, PROTOCOLS, SERVER_NAME},
};
use crate::rules::Protocol;

/// A TLS ClientHello, which may be cut into any number of records, and those into any number of reads.
#[derive(Debug, Default)]
pub(super) struct Hello {
    records: Records,
    message: Vec<u8>,
}

/// First byte of a TLS record that holds a handshake message.
pub(super) const HANDSHAKE: u8 = 22;

impl Hello {
    pub(super) fn read(&mut self, mut bytes: &[u8]) -> Progress {
        while let Some(fragment) = self.records.next(&mut bytes) {
            let Ok(fragment) = fragment else { return Progress::Nothing };
            self.message.extend_from_slice(fragment);
            let Some((&[kind, high, middle, low], body)) = self.message.split_first_chunk() else { continue };
            let length = u32::from_be_bytes([0, high, middle, low]) as usize;
            if kind != CLIENT_HELLO || length > NameReader::LIMIT {
                return Progress::Nothing;
            }
            if let Some(body) = body.get(..length) {
                return found(body).map_or(Progress::Nothing, Progress::Found);
            }
        }
        Progress::More
    }
}

/// RFC 8446, section 4.1.2. What a server does not need to understand is read leniently, as servers do: a hello of which
/// one server could make something must not pass for none.
fn found(body: &[u8]) -> Option<Found> {
    let mut body = Bytes(body);
    let mut ja4 = Ja4 { version: body.number()?, ..Ja4::default() };
    body.take(RANDOM)?;
    body.short_vector()?; // session
    ja4.ciphers = body.vector()?.numbers()?;
    body.short_vector()?; // compression
    // SSL 3.0 and TLS 1.0 had none.
    let mut extensions = if body.is_empty() { Bytes(&[]) } else { body.vector()? };
    if !body.is_empty() {
        return None;
    }

    let mut names = Vec::new();
    let mut found = Found::new(Protocol::Tls);
    while !extensions.is_empty() {
        let (kind, mut data) = (extensions.number()?, extensions.vector()?);
        ja4.extensions.push(kind);
        match kind {
            SERVER_NAME => names.push(name(data)),
            PROTOCOLS => {
                let protocols = protocols(data).unwrap_or_default();
                ja4.protocol = protocols.first().copied();
                found.alpn = protocols.iter().map(|protocol| protocol.escape_ascii().to_string()).collect();
            }
            SIGNATURE_ALGORITHMS => {
                ja4.signature_algorithms = data.vector().and_then(Bytes::numbers).unwrap_or_default();
            }
            SUPPORTED_VERSIONS => {
                ja4.versions = Some(data.short_vector().and_then(Bytes::numbers).unwrap_or_default());
            }
            ENCRYPTED_CLIENT_HELLO => found.ech = true,
            _ => {}
        }
    }
    // With two, client and server could disagree about which counts.
    if let [Some(name)] = &names[..] {
        found.name = Some(Name::Sni(name.clone()));
    }
    found.ja4 = Some(ja4.to_string());
    Some(found)
}

/// The one name in `server_name`.
fn name(mut data: Bytes<'_>) -> Option<String> {
    let mut names = data.vector().filter(|_| data.is_empty())?;
    let (kind, name) = (names.byte()?, names.vector()?.0);
    let is_name = kind == HOST_NAME && names.is_empty() && authority::is_name(name);
    is_name.then(|| str::from_utf8(name).ok().map(str::to_ascii_lowercase))?
}

fn protocols(mut data: Bytes<'_>) -> Option<Vec<&[u8]>> {
    let mut list = data.vector().filter(|_| data.is_empty())?;
    let mut protocols = Vec::new();
    while !list.is_empty() {
        protocols.push(list.short_vector()?.0);
    }
    Some(protocols)
}

/// What is left to be read.
#[derive(Clone, Copy, Debug)]
struct Bytes<'b>(&'b [u8]);

impl<'b> Bytes<'b> {
    fn is_empty(self) -> bool {
        self.0.is_empty()
    }

    fn take(&mut self, length: usize) -> Option<Self> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(Self(taken))
    }

    fn byte(&mut self) -> Option<u8> {
        let (&byte, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(byte)
    }

    fn number(&mut self) -> Option<u16> {
        let (&number, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u16::from_be_bytes(number))
    }

    /// Its length in one byte comes first.
    fn short_vector(&mut self) -> Option<Self> {
        let length = self.byte()?;
        self.take(length.into())
    }

    /// Its length in two bytes comes first.
    fn vector(&mut self) -> Option<Self> {
        let length = self.number()?;
        self.take(length.into())
    }

    /// All of it.
    fn numbers(self) -> Option<Vec<u16>> {
        let (numbers, rest) = self.0.as_chunks();
        rest.is_empty().then(|| numbers.iter().copied().map(u16::from_be_bytes).collect())
    }
}

const CLIENT_HELLO: u8 = 1;
const RANDOM: usize = 32;
const HOST_NAME: u8 = 0;

const SIGNATURE_ALGORITHMS: u16 = 13;
const SUPPORTED_VERSIONS: u16 = 43;
/// RFC 9849.
const ENCRYPTED_CLIENT_HELLO: u16 = 0xfe0d;
