//! Listeners whose connections are told apart by where they come from.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use carnet_e2e::sockets::{PATIENCE, listen, until};

use super::cell::{Family, Place};

/// One listener.
pub struct Door {
    pub address: SocketAddr,
    listener: TcpListener,
    came: BTreeMap<SocketAddr, TcpStream>,
}

/// Listeners by family and place.
pub type Doors = BTreeMap<(Family, Place), Door>;

/// Listens at this place by both families.
pub fn doors_at(place: Place) -> Doors {
    let door = |family| ((family, place), Door::new(listen(&SocketAddr::new(place.ip(family), 0).to_string())));
    Family::BOTH.map(door).into()
}

impl Door {
    pub fn new(listener: TcpListener) -> Self {
        Self { address: listener.local_addr().unwrap(), listener, came: BTreeMap::new() }
    }

    /// Connects until that works.
    pub fn wait_until_reached(&mut self) {
        let patience = Duration::from_millis(200);
        let reach = || TcpStream::connect_timeout(&self.address, patience).ok();
        let client = until("the other host to be reached", reach);
        // connect() is done before the last packet of the handshake is there: who is not waited for is a stranger later.
        self.fetch(client.local_addr().unwrap()).expect("accept");
        self.came.clear();
    }

    /// The connection from this address. Others that come meanwhile are kept.
    pub fn fetch(&mut self, from: SocketAddr) -> Result<TcpStream> {
        let end = Instant::now() + PATIENCE;
        loop {
            self.let_in()?;
            if let Some(stream) = self.came.remove(&from) {
                return Ok(stream);
            }
            ensure!(Instant::now() < end, "nobody came from {from} to {}", self.address);
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// Fails where somebody came whom nobody has fetched.
    pub fn assert_no_stranger(&mut self) -> Result<()> {
        self.let_in()?;
        let strangers: Vec<_> = std::mem::take(&mut self.came).into_keys().collect();
        ensure!(strangers.is_empty(), "nobody should have come to {}, but {strangers:?} did", self.address);
        Ok(())
    }

    fn let_in(&mut self) -> Result<()> {
        loop {
            let (stream, from) = match self.listener.accept() {
                Ok(accepted) => accepted,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => bail!("accept at {}: {error}", self.address),
            };
            stream.set_nonblocking(false)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            let before = self.came.insert(from, stream);
            ensure!(before.is_none(), "two came from {from} to {}", self.address);
        }
    }
}
