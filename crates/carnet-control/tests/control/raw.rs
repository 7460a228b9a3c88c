//! HTTP by hand.

use std::path::Path;

use carnet_control::Problem;
use serde::de::DeserializeOwned;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
};

use crate::scene::soon;

#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn parse<T: DeserializeOwned>(&self) -> T {
        match serde_json::from_slice(&self.body) {
            Ok(parsed) => parsed,
            Err(error) => panic!("{error}: {} {}", self.head, String::from_utf8_lossy(&self.body)),
        }
    }

    /// Status, type and body agree.
    pub fn problem(&self) -> Problem {
        let problem: Problem = self.parse();
        assert!(self.head.contains("content-type: application/problem+json\r\n"), "{}", self.head);
        assert_eq!(problem.status, self.status);
        assert_eq!(problem.kind.status().as_u16(), self.status);
        assert!(!problem.title.is_empty() && !problem.detail.is_empty());
        problem
    }
}

pub async fn ask(socket: &Path, method: &str, path: &str, headers: &str, body: &[u8]) -> Answer {
    let length = body.len();
    let head = format!("{method} {path} HTTP/1.1\r\nhost: carnet\r\n{headers}content-length: {length}\r\n\r\n");
    send(socket, &[head.as_bytes(), body].concat()).await
}

/// Sends these bytes, and reads one answer.
pub async fn send(socket: &Path, bytes: &[u8]) -> Answer {
    let mut stream = UnixStream::connect(socket).await.unwrap();
    // What is refused early is not read to its end.
    let _ = stream.write_all(bytes).await;
    read(&mut stream).await
}

/// One answer, of those that say how long they are.
pub async fn read(stream: &mut UnixStream) -> Answer {
    soon("an answer", async {
        let mut bytes = Vec::new();
        let head_end = loop {
            if let Some(end) = find(&bytes, b"\r\n\r\n") {
                break end + 4;
            }
            assert_ne!(stream.read_buf(&mut bytes).await.unwrap(), 0, "{}", String::from_utf8_lossy(&bytes));
        };
        let head = String::from_utf8(bytes[..head_end].to_vec()).unwrap().to_lowercase();
        let status = head[9..12].parse().unwrap();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        let length: usize = length.map_or(0, |length| length.parse().unwrap());
        while bytes.len() < head_end + length {
            assert_ne!(stream.read_buf(&mut bytes).await.unwrap(), 0, "{}", String::from_utf8_lossy(&bytes));
        }
        Answer { status, head, body: bytes[head_end..head_end + length].to_vec() }
    })
    .await
}

pub fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}
