use std::fmt;

use rustls::server::{Accepted, Acceptor};

use super::{Found, Name, Progress};

/// A TLS ClientHello, which may be cut into any number of records, and those into any number of reads.
///
/// rustls reads it with its server's own code. It is built without a provider of cryptography, so it can do no more
/// here.
#[derive(Default)]
pub(super) struct Hello {
    acceptor: Acceptor,
}

/// First byte of a TLS record that holds a handshake message.
pub(super) const HANDSHAKE: u8 = 22;

impl Hello {
    pub(super) fn read(&mut self, mut bytes: &[u8]) -> Progress {
        // rustls takes some of the bytes at a time, and wants to be asked after each time.
        while !bytes.is_empty() {
            match self.acceptor.read_tls(&mut bytes) {
                Ok(taken) if taken > 0 => {}
                _ => return Progress::Nothing,
            }
            match self.acceptor.accept() {
                Ok(None) => {}
                Ok(Some(accepted)) => return found(&accepted),
                Err(_) => return Progress::Nothing,
            }
        }
        Progress::More
    }
}

impl fmt::Debug for Hello {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hello").finish_non_exhaustive()
    }
}

fn found(accepted: &Accepted) -> Progress {
    let hello = accepted.client_hello();
    let Some(name) = hello.server_name() else {
        return Progress::Nothing;
    };
    let alpn = hello.alpn().into_iter().flatten().map(|protocol| protocol.escape_ascii().to_string()).collect();
    Progress::Found(Found { name: Name::Sni(name.to_ascii_lowercase()), alpn })
}
