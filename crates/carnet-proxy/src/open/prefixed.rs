use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

use crate::relay::reset_when_closed;

/// A connection of which something has been read already, which is read from this again.
#[derive(Debug)]
pub(super) struct Prefixed<S> {
    early: Vec<u8>,
    from: usize,
    stream: S,
}

/// A client's connection: reset when it is dropped, unless it was ended before. Half an answer never looks like a whole one.
#[derive(Debug)]
pub(super) struct Client(TcpStream);

impl<S> Prefixed<S> {
    pub(super) fn new(early: Vec<u8>, stream: S) -> Self {
        Self { early, from: 0, stream }
    }
}

impl Client {
    pub(super) fn new(stream: TcpStream) -> Self {
        reset_when_closed(&stream, true);
        let _ = stream.set_nodelay(true);
        Self(stream)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Prefixed<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let left = &this.early[this.from..];
        if left.is_empty() {
            return Pin::new(&mut this.stream).poll_read(cx, buffer);
        }
        let length = left.len().min(buffer.remaining());
        buffer.put_slice(&left[..length]);
        this.from += length;
        if this.from == this.early.len() {
            (this.early, this.from) = (Vec::new(), 0);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for Client {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

/// Writing goes to what is inside; `$shutdown` is called before the end of data.
macro_rules! write_through {
    (|$this:ident| $stream:expr, $shutdown:expr) => {
        fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            let $this = &mut *self;
            Pin::new(&mut $stream).poll_write(cx, bytes)
        }

        fn poll_write_vectored(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            bytes: &[IoSlice<'_>],
        ) -> Poll<io::Result<usize>> {
            let $this = &mut *self;
            Pin::new(&mut $stream).poll_write_vectored(cx, bytes)
        }

        fn is_write_vectored(&self) -> bool {
            let $this = self;
            $stream.is_write_vectored()
        }

        fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            let $this = &mut *self;
            Pin::new(&mut $stream).poll_flush(cx)
        }

        fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            let $this = &mut *self;
            $shutdown($this);
            Pin::new(&mut $stream).poll_shutdown(cx)
        }
    };
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Prefixed<S> {
    write_through!(|this| this.stream, |_: &mut Self| ());
}

impl AsyncWrite for Client {
    write_through!(|this| this.0, |this: &mut Self| reset_when_closed(&this.0, false));
}
