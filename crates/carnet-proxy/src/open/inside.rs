//! What is inside of a flow that was opened.

use std::{io, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncReadExt},
    time::timeout,
};

use super::Inside;

/// What came first in an opened flow.
#[derive(Debug, Default)]
pub(super) struct First {
    /// What each side has sent and the other one has not got.
    pub(super) of_client: Vec<u8>,
    pub(super) of_server: Vec<u8>,
    /// The client has ended its data.
    pub(super) is_over: bool,
}

impl First {
    /// Waits until it is known what is inside. Where that is settled, for the client's first bytes only.
    pub(super) async fn wait(
        &mut self,
        settled: Option<Inside>,
        client: &mut (impl AsyncRead + Unpin),
        server: &mut (impl AsyncRead + Unpin),
    ) -> io::Result<Inside> {
        let mut piece = [0; 2048];
        loop {
            if settled.is_some() {
                // Whatever the server says first, a client of HTTP begins.
                let length = client.read(&mut piece).await?;
                self.is_over = length == 0;
                self.of_client.extend_from_slice(&piece[..length]);
                return Ok(settled.unwrap_or(Inside::Bytes));
            }
            let mut answer = [0; 2048];
            tokio::select! {
                biased;
                read = client.read(&mut piece) => match read? {
                    0 => {
                        self.is_over = true;
                        return Ok(Inside::Bytes);
                    }
                    length => self.of_client.extend_from_slice(&piece[..length]),
                },
                read = server.read(&mut answer) => {
                    self.of_server.extend_from_slice(&answer[..read?]);
                    return Ok(Inside::Bytes);
                }
            }
            match speaks(&self.of_client) {
                Some(inside) => return Ok(inside),
                // It has begun to say something that is not whole yet.
                None => match timeout(REST, client.read(&mut piece)).await {
                    Ok(read) => {
                        let length = read?;
                        self.of_client.extend_from_slice(&piece[..length]);
                        if let Some(inside) = speaks(&self.of_client) {
                            return Ok(inside);
                        }
                        if length == 0 {
                            return Ok(Inside::Bytes);
                        }
                    }
                    Err(_) => return Ok(Inside::Bytes),
                },
            }
        }
    }
}

/// What begins so; `None` where more is needed. HTTP/1 is a whole request line: `USER alice` is none.
pub(super) fn speaks(bytes: &[u8]) -> Option<Inside> {
    if bytes.starts_with(PREFACE) {
        return Some(Inside::Http2);
    }
    if PREFACE.starts_with(bytes) {
        return None;
    }
    let method = bytes.iter().take_while(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte));
    let method = method.count();
    match bytes.get(method) {
        None if method <= LONGEST_METHOD => return None,
        Some(b' ') if method > 0 => {}
        _ => return Some(Inside::Bytes),
    }
    let Some(end) = bytes.iter().position(|byte| *byte == b'\n') else {
        return (bytes.len() > LONGEST_LINE).then_some(Inside::Bytes);
    };
    let line = bytes[..end].trim_ascii_end();
    let is_http = line.ends_with(b" HTTP/1.1") || line.ends_with(b" HTTP/1.0");
    Some(if is_http { Inside::Http1 } else { Inside::Bytes })
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

const LONGEST_METHOD: usize = 32;

const LONGEST_LINE: usize = 16 << 10;

/// How long the rest of what a client has begun to say may take.
const REST: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn http_is_known_by_its_first_line() {
        for (bytes, inside) in [
            (&b"GET / HTTP/1.1\r\n"[..], Some(Inside::Http1)),
            (b"POST /x HTTP/1.0\n", Some(Inside::Http1)),
            (b"GET / HTT", None),
            (b"", None),
            (b"PRI", None),
            (PREFACE, Some(Inside::Http2)),
            (b"PRI * HTTP/2.0\r\n\r\nSM", None),
            (b"USER alice\r\n", Some(Inside::Bytes)),
            (b"a001 LOGIN x y\r\n", Some(Inside::Bytes)),
            (b"\x00\x01", Some(Inside::Bytes)),
            (&[b'A'; 40], Some(Inside::Bytes)),
        ] {
            assert_eq!(speaks(bytes), inside, "{}", bytes.escape_ascii());
        }
        let long = [b"GET /".to_vec(), vec![b'x'; LONGEST_LINE]].concat();
        assert_eq!(speaks(&long), Some(Inside::Bytes));
    }
}
