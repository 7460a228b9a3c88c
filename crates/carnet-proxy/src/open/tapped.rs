use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::tap::TapFlow;

/// A client's side of an opened flow: what passes is recorded as it is inside of TLS.
#[derive(Debug)]
pub(super) struct Tapped<S> {
    stream: S,
    tap: Option<Box<TapFlow>>,
}

impl<S> Tapped<S> {
    pub(super) fn new(stream: S, tap: Option<Box<TapFlow>>) -> Self {
        Self { stream, tap }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Tapped<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
        match (&self.tap, &buffer.filled()[before..]) {
            (Some(tap), []) if buffer.remaining() > 0 => tap.client_closed(),
            (Some(tap), bytes) => tap.client_sent(bytes),
            (None, _) => {}
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Tapped<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let length = ready!(Pin::new(&mut self.stream).poll_write(cx, bytes))?;
        if let Some(tap) = &self.tap {
            tap.server_sent(&bytes[..length]);
        }
        Poll::Ready(Ok(length))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.stream).poll_shutdown(cx))?;
        if let Some(tap) = &self.tap {
            tap.server_closed();
        }
        Poll::Ready(Ok(()))
    }
}
