//! HTTP on both sides: one connection of a client, and one to its server.

use std::{
    convert::Infallible,
    sync::{Arc, Mutex, PoisonError},
};

use hyper::{client::conn as to, server::conn as from, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    task::JoinSet,
};

use super::{
    Inside, Subject,
    exchange::{Connection, Sender, exchange},
    flow::Teller,
    page::bad_gateway,
};

/// Serves until both sides have ended.
pub(super) async fn serve<C, S>(
    subject: &Arc<Subject>,
    teller: &Teller,
    inside: Inside,
    is_tls: bool,
    client: C,
    server: S,
) where
    C: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (client, server) = (TokioIo::new(client), TokioIo::new(server));
    let connection = |sender| {
        Arc::new(Connection {
            subject: Arc::clone(subject),
            teller: teller.clone(),
            is_tls,
            sender,
            tunnels: Mutex::default(),
        })
    };
    if inside == Inside::Http2 {
        let Ok((sender, upstream)) = http2_client().handshake(server).await else { return };
        let connection = connection(Sender::Http2(sender));
        let service = service_fn(|request| exchange(Arc::clone(&connection), request));
        let downstream = http2_server().serve_connection(client, service);
        let tunnels = drive(downstream, |downstream| downstream.graceful_shutdown(), upstream, &connection).await;
        tunnels.join_all().await;
    } else {
        let Ok((sender, upstream)) = http1_client().handshake(server).await else { return };
        let connection = connection(Sender::Http1(tokio::sync::Mutex::new(sender)));
        let service = service_fn(|request| exchange(Arc::clone(&connection), request));
        let downstream = http1_server().serve_connection(client, service).with_upgrades();
        let tunnels =
            drive(downstream, |downstream| downstream.graceful_shutdown(), upstream.with_upgrades(), &connection).await;
        tunnels.join_all().await;
    }
}

/// Until the client's connection has ended, and the server's with it. A server that ends its connection first, as it may
/// between two requests, ends the client's.
async fn drive<D, U>(
    downstream: D,
    end: impl FnOnce(std::pin::Pin<&mut D>),
    upstream: U,
    connection: &Connection,
) -> JoinSet<()>
where
    D: Future,
    U: Future,
{
    let (mut downstream, mut upstream) = (std::pin::pin!(downstream), std::pin::pin!(upstream));
    tokio::select! {
        biased;
        _ = &mut upstream => {
            end(downstream.as_mut());
            downstream.await;
            return take_tunnels(connection);
        }
        _ = &mut downstream => {}
    }
    let tunnels = take_tunnels(connection);
    if !tunnels.is_empty() {
        // It gives its connection away, to the tunnel.
        upstream.await;
    }
    tunnels
}

fn take_tunnels(connection: &Connection) -> JoinSet<()> {
    std::mem::take(&mut *connection.tunnels.lock().unwrap_or_else(PoisonError::into_inner))
}

/// Answers every request of a client with the reason why there is no server for it.
pub(super) async fn serve_page<C>(inside: Inside, client: C, error: String)
where
    C: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let client = TokioIo::new(client);
    let service = service_fn(|_| {
        let response = bad_gateway(&error);
        async move { Ok::<_, Infallible>(response) }
    });
    // A client that ends its connection in the middle has heard enough.
    let _ = match inside {
        Inside::Http1 => http1_server().keep_alive(false).serve_connection(client, service).await,
        Inside::Http2 => http2_server().serve_connection(client, service).await,
        Inside::Bytes => Ok(()),
    };
}

fn http1_server() -> from::http1::Builder {
    let mut builder = from::http1::Builder::new();
    builder.preserve_header_case(true).auto_date_header(false).half_close(true).header_read_timeout(None);
    builder.max_buf_size(MOST_BUFFERED).max_headers(MOST_HEADERS);
    builder
}

fn http1_client() -> to::http1::Builder {
    let mut builder = to::http1::Builder::new();
    builder.preserve_header_case(true).max_buf_size(MOST_BUFFERED).max_headers(MOST_HEADERS);
    builder
}

fn http2_server() -> from::http2::Builder<TokioExecutor> {
    let mut builder = from::http2::Builder::new(TokioExecutor::new());
    builder.auto_date_header(false).max_concurrent_streams(MOST_STREAMS).max_header_list_size(MOST_HEADER_LIST);
    builder.initial_stream_window_size(STREAM_WINDOW).initial_connection_window_size(CONNECTION_WINDOW);
    builder.max_send_buf_size(STREAM_SEND);
    builder
}

fn http2_client() -> to::http2::Builder<TokioExecutor> {
    let mut builder = to::http2::Builder::new(TokioExecutor::new());
    builder.max_header_list_size(MOST_HEADER_LIST).max_send_buf_size(STREAM_SEND);
    builder.initial_stream_window_size(STREAM_WINDOW).initial_connection_window_size(CONNECTION_WINDOW);
    builder
}

/// Most bytes of a connection of HTTP/1 that are kept in each direction; the head of a message is no longer.
const MOST_BUFFERED: usize = 256 << 10;

/// Most headers of a message of HTTP/1.
const MOST_HEADERS: usize = 256;

/// Most bytes of all headers of a message of HTTP/2.
const MOST_HEADER_LIST: u32 = 256 << 10;

/// Requests of a connection of HTTP/2 at a time.
const MOST_STREAMS: u32 = 128;

/// Most bytes that are kept of one stream of HTTP/2, and of all streams of one side.
const STREAM_WINDOW: u32 = 512 << 10;
const CONNECTION_WINDOW: u32 = 2 << 20;

/// Most bytes of one stream that wait to be sent.
const STREAM_SEND: usize = 64 << 10;
