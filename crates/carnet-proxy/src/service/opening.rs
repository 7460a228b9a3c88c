//! From an accepted connection to a relay where rules apply: what the client sends first is held back until the rules
//! have what they need.

use std::{
    future::{Future, pending},
    io,
    time::Duration,
};

use tokio::{
    net::TcpStream,
    time::{Instant, sleep_until},
};

use crate::{Found, NameReader, relay::broken};

/// What a client has sent and nobody has got yet.
#[derive(Debug, Default)]
pub(super) struct Opening {
    pub(super) bytes: Vec<u8>,
    pub(super) reader: NameReader,
    pub(super) found: Option<Found>,
}

/// How waiting for a client's first bytes ended.
#[derive(Debug, Eq, PartialEq)]
pub(super) enum Waited {
    /// All is known that its first bytes tell.
    Read,
    /// The server spoke first, the client ended its data, or there was nothing more in time.
    Nothing,
    /// The client has gone.
    Gone,
}

impl Opening {
    /// Reads until all is known, without waiting longer than it is of use. A server that speaks first does not wait for
    /// what its client says: `server` is ready when there is something of it.
    pub(super) async fn wait(
        &mut self,
        client: &TcpStream,
        patience: Option<Duration>,
        server: impl Future<Output = io::Result<()>>,
    ) -> io::Result<Waited> {
        let mut server = std::pin::pin!(server);
        let mut end = patience.map(|patience| Instant::now() + patience);
        loop {
            let until_end = async {
                match end {
                    Some(end) => sleep_until(end).await,
                    None => pending().await,
                }
            };
            // In this order: what is there of the client counts, however early the server is.
            tokio::select! {
                biased;
                read = self.read(client) => match read {
                    Err(_) => return Ok(Waited::Gone),
                    Ok(0) => return Ok(Waited::Nothing),
                    Ok(_) if self.reader.is_done() => return Ok(Waited::Read),
                    // It has begun to say something that is not whole yet.
                    Ok(length) if length == self.bytes.len() => end = Some(Instant::now() + REST),
                    Ok(_) => {}
                },
                _ = broken(client) => return Ok(Waited::Gone),
                spoke = &mut server => return spoke.map(|()| Waited::Nothing),
                () = until_end => return Ok(Waited::Nothing),
            }
        }
    }

    async fn read(&mut self, client: &TcpStream) -> io::Result<usize> {
        let from = self.bytes.len();
        self.bytes.reserve(READ);
        let length = loop {
            client.readable().await?;
            match client.try_read_buf(&mut self.bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => break result?,
            }
        };
        if let Some(found) = self.reader.read(&self.bytes[from..]) {
            self.found = Some(found);
        }
        Ok(length)
    }
}

/// Bytes to make room for. A hello is smaller, most often.
const READ: usize = 2048;

/// How long the rest of what a client has begun to say may take.
const REST: Duration = Duration::from_secs(10);
