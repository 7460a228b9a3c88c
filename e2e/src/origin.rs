//! Servers on loopback, in the test's own process and cgroup, that keep account of every connection.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use crate::sockets::{PATIENCE, listen};

/// Serves in threads until it is dropped.
#[derive(Debug)]
pub struct Origin {
    /// Where: by IPv4 or by IPv6.
    pub address: SocketAddr,
    served: Arc<Mutex<Vec<Exchange>>>,
    over: Arc<AtomicBool>,
}

/// One connection, as the server saw it.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Exchange {
    /// The path of the request; empty where it is no HTTP.
    pub path: String,
    /// Bytes that came.
    pub received: u64,
    /// Bytes that went.
    pub sent: u64,
}

impl Origin {
    /// Answers every HTTP request with [`body_of`] its path, one request a connection.
    pub fn http(at: &str) -> Self {
        Self::serve(at, |mut client| {
            let mut request = Vec::new();
            let mut byte = [0];
            while !request.ends_with(b"\r\n\r\n") {
                match client.read(&mut byte) {
                    Ok(1) => request.push(byte[0]),
                    // A connection that only looks whether somebody is there is counted too.
                    _ => return Exchange { received: request.len() as u64, ..Exchange::default() },
                }
            }
            let text = String::from_utf8_lossy(&request);
            let path = text.split(' ').nth(1).expect("METHOD PATH VERSION").to_owned();
            let body = body_of(&path);
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
            let sent = client.write_all((head.clone() + &body).as_bytes()).map_or(0, |()| head.len() + body.len());
            let _ = client.shutdown(Shutdown::Write);
            let rest = client.read_to_end(&mut Vec::new()).unwrap_or_default();
            Exchange { path, received: (request.len() + rest) as u64, sent: sent as u64 }
        })
    }

    /// Sends back what came, but not before the client has said that this was all: half-close must work.
    pub fn echo_at_the_end(at: &str) -> Self {
        Self::serve(at, |mut client| {
            let mut bytes = Vec::new();
            let ended = client.read_to_end(&mut bytes).is_ok();
            let sent = ended && client.write_all(&bytes).is_ok();
            let received = bytes.len() as u64;
            Exchange { received, sent: if sent { received } else { 0 }, ..Exchange::default() }
        })
    }

    /// What has been served until now.
    pub fn served(&self) -> Vec<Exchange> {
        self.served.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn serve(at: &str, answer: fn(TcpStream) -> Exchange) -> Self {
        let listener = listen(at);
        let address = listener.local_addr().expect("its address");
        let (served, over) = (Arc::default(), Arc::new(AtomicBool::new(false)));
        let origin = Self { address, served, over };
        let (served, over) = (origin.served.clone(), origin.over.clone());
        thread::spawn(move || accept_all(&listener, answer, &served, &over));
        origin
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
    }
}

fn accept_all(
    listener: &TcpListener,
    answer: fn(TcpStream) -> Exchange,
    served: &Arc<Mutex<Vec<Exchange>>>,
    over: &AtomicBool,
) {
    while !over.load(Ordering::Relaxed) {
        let Ok((client, _)) = listener.accept() else {
            thread::sleep(Duration::from_millis(1));
            continue;
        };
        let served = served.clone();
        thread::spawn(move || {
            client.set_nonblocking(false).expect("blocking");
            client.set_read_timeout(Some(PATIENCE)).expect("timeout");
            client.set_write_timeout(Some(PATIENCE)).expect("timeout");
            let exchange = answer(client);
            served.lock().unwrap_or_else(PoisonError::into_inner).push(exchange);
        });
    }
}

/// What is answered to a request for this path. Clients compute it too, so that they see whether all of it came.
pub fn body_of(path: &str) -> String {
    path.repeat(1000)
}
