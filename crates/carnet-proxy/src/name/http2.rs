use std::{
    io,
    pin::{Pin, pin},
    task::{Context, Poll, Waker},
};

use h2::server::Builder;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{Found, Name, NameReader, Progress, authority};
use crate::rules::Protocol;

/// What a client that knows of HTTP/2 beforehand sends, up to the end of its first request's header.
#[derive(Debug, Default)]
pub(super) struct Opening {
    bytes: Vec<u8>,
    /// Where the next frame begins.
    frame: usize,
    /// The header has begun.
    in_header: bool,
}

pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

impl Opening {
    /// Frames are counted off here, and read by h2 when all are there: so it is the same for all cuts, and what follows
    /// cannot undo it.
    pub(super) fn read(&mut self, bytes: &[u8]) -> Progress {
        self.bytes.extend_from_slice(bytes);
        self.frame = self.frame.max(PREFACE.len());
        while let Some(&[high, middle, low, kind, flags]) = self.bytes.get(self.frame..).and_then(<[u8]>::first_chunk) {
            let length = u32::from_be_bytes([0, high, middle, low]) as usize;
            let end = self.frame + FRAME_HEADER + length;
            if end > NameReader::LIMIT {
                return Progress::Nothing;
            }
            if end > self.bytes.len() {
                break;
            }
            self.frame = end;
            self.in_header |= kind == HEADERS;
            if self.in_header && [HEADERS, CONTINUATION].contains(&kind) && flags & END_HEADERS != 0 {
                return match first_request(&self.bytes[..end]) {
                    Some(request) => Progress::Found(Found {
                        name: name(&request).map(Name::Authority),
                        ..Found::new(Protocol::Http2)
                    }),
                    None => Progress::Nothing,
                };
            }
        }
        Progress::More
    }
}

/// h2 reads it with its server's own code, whose answers go nowhere.
fn first_request(bytes: &[u8]) -> Option<http::request::Parts> {
    let connection = async {
        let mut builder = Builder::new();
        builder.max_header_list_size(HEADER_LIST_MAX);
        let mut connection = builder.handshake::<_, &[u8]>(Recorded(bytes.to_vec().into())).await.ok()?;
        let (request, _) = connection.accept().await?.ok()?;
        Some(request.into_parts().0)
    };
    // There is nothing to wait for, so once is enough.
    match pin!(connection).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(request) => request,
        Poll::Pending => None,
    }
}

/// `:authority`, or the one `Host`; where there are both they must agree, or client and server might not.
fn name(request: &http::request::Parts) -> Option<String> {
    let mut hosts = request.headers.get_all(http::header::HOST).iter();
    let host = match (hosts.next(), hosts.next()) {
        (Some(host), None) => Some(authority::name(host.to_str().ok()?)?),
        (None, _) => None,
        (Some(_), Some(_)) => return None,
    };
    let Some(authority) = request.uri.authority() else { return host };
    let name = authority::name(authority.as_str())?;
    host.is_none_or(|host| host == name).then_some(name)
}

/// A connection on which some bytes have come, and no more yet.
struct Recorded(std::collections::VecDeque<u8>);

impl AsyncRead for Recorded {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.0.is_empty() {
            return Poll::Pending;
        }
        let (part, _) = self.0.as_slices();
        let length = part.len().min(into.remaining());
        into.put_slice(&part[..length]);
        self.0.drain(..length);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Recorded {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// RFC 9113, section 4.1.
const FRAME_HEADER: usize = 9;
const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 4;

/// Compressed, a header could be much longer than what was sent.
const HEADER_LIST_MAX: u32 = 4 * NameReader::LIMIT as u32;
