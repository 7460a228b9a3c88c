//! What a client gets whose flow is blocked.

use std::{net::Shutdown, time::Duration};

use socket2::SockRef;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::{
    relay::reset_when_closed,
    rules::{Block, Protocol, Refusal},
};

/// Tells the client in its own protocol, where the rule wants that and the protocol can, and ends the connection.
/// Otherwise it is reset.
pub(super) async fn refuse(client: &mut TcpStream, protocol: Option<Protocol>, refusal: &Refusal) {
    let answer = match (refusal.block.in_protocol(protocol), protocol) {
        (Block::Alert, _) => ACCESS_DENIED.to_vec(),
        (Block::Forbidden, Some(Protocol::Http2)) => forbidden_http2(refusal),
        (Block::Forbidden, _) => forbidden_http1(refusal),
        (Block::Reset, _) => return,
    };
    // A client that does not take it is reset, like one that does not end.
    let _ = timeout(PATIENCE, answer_and_end(client, &answer)).await;
}

async fn answer_and_end(client: &mut TcpStream, answer: &[u8]) -> std::io::Result<()> {
    client.write_all(answer).await?;
    reset_when_closed(client, false);
    SockRef::from(&*client).shutdown(Shutdown::Write)?;
    // What it still sends is read, or closing would reset the connection, and the answer be lost with it.
    let mut rest = [0; 4096];
    let mut left = MOST_READ;
    while left > 0 {
        match client.read(&mut rest).await? {
            0 => return Ok(()),
            length => left = left.saturating_sub(length),
        }
    }
    Ok(())
}

fn forbidden_http1(refusal: &Refusal) -> Vec<u8> {
    let text = text(refusal);
    let length = text.len();
    format!(
        "HTTP/1.1 403 Forbidden\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {length}\r\n\
         Cache-Control: no-store\r\nConnection: close\r\n\r\n{text}"
    )
    .into_bytes()
}

/// SETTINGS, HEADERS and DATA of the first request's stream, GOAWAY: RFC 9113, sections 6.5, 6.2, 6.1 and 6.8.
fn forbidden_http2(refusal: &Refusal) -> Vec<u8> {
    let mut text = text(refusal).into_bytes();
    text.truncate(16384); // the largest frame that every client takes
    let mut answer = Vec::new();
    let mut frame = |kind: u8, flags: u8, stream: u32, payload: &[u8]| {
        answer.extend_from_slice(&(payload.len() as u32).to_be_bytes()[1..]);
        answer.extend_from_slice(&[kind, flags]);
        answer.extend_from_slice(&stream.to_be_bytes());
        answer.extend_from_slice(payload);
    };
    frame(4, 0, 0, &[]);
    // HPACK (RFC 7541): a literal whose name is entry 8 of the static table, :status.
    frame(1, END_HEADERS, 1, &[0x08, 3, b'4', b'0', b'3']);
    frame(0, END_STREAM, 1, &text);
    frame(7, 0, 0, &[0, 0, 0, 1, 0, 0, 0, 0]);
    answer
}

fn text(refusal: &Refusal) -> String {
    match &refusal.reason {
        Some(reason) => format!("Blocked by carnet: {reason}\n"),
        None => "Blocked by carnet.\n".into(),
    }
}

/// A fatal alert, access_denied (49), in a record as TLS 1.2 and 1.3 have it: RFC 8446, sections 5.1 and 6.2.
const ACCESS_DENIED: [u8; 7] = [21, 3, 3, 0, 2, 2, 49];

const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// How long a refused client may take to end its side.
const PATIENCE: Duration = Duration::from_secs(2);

/// Most bytes that are read of a refused client.
const MOST_READ: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_frames_are_whole() {
        let refusal = Refusal { reason: Some("no".into()), ..Refusal::default() };
        let mut answer = &forbidden_http2(&refusal)[..];
        let mut kinds = Vec::new();
        while let [a, b, c, kind, _, _, _, _, _, rest @ ..] = answer {
            kinds.push(*kind);
            answer = &rest[u32::from_be_bytes([0, *a, *b, *c]) as usize..];
        }
        assert_eq!((kinds, answer.len()), (vec![4, 1, 0, 7], 0));
    }
}
