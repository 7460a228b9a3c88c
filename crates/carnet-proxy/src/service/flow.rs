use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use socket2::{SockRef, TcpKeepalive};
use tokio::{
    net::{TcpSocket, TcpStream},
    time,
};

use super::{
    Desk, Options,
    inspected::inspect,
    route::{Route, Routes},
};
use crate::{
    NameReader, Report, Reporter, relay,
    relay::{broken, reset_when_closed},
};

/// One accepted connection, to its end. Wherever this returns before the relay, the client is reset.
pub(super) async fn serve<T: Routes, R: Reporter>(mut client: TcpStream, peer: SocketAddr, desk: Arc<Desk<T, R>>) {
    reset_when_closed(&client, true);
    let route = match desk.routes.route(&client) {
        Ok(route) => route,
        Err(error) => return desk.reporter.report(Report::Unredirected { peer, error }),
    };
    if let Some(inspection) = &desk.inspection {
        // Boxed: what this takes is not to be a part of every open flow.
        if let Some(inspected) = Box::pin(inspect(&mut client, route, inspection, &desk)).await {
            inspected.relay(client, &desk.reporter).await;
        }
        return;
    }
    let Route { flow_id, depth, destination } = route;
    let server = tokio::select! {
        biased;
        result = dial(&client, destination, &desk.routes, &desk.options) => match result {
            Ok(server) => server,
            Err(error) => return desk.reporter.report(Report::Refused { flow_id, depth, destination, error }),
        },
        _ = broken(&client) => return, // it does not want the answer any more
    };

    let mut reader = NameReader::new();
    relay(client, server, |bytes| {
        if let Some(found) = reader.read(bytes) {
            desk.reporter.report(Report::Name { flow_id, depth, found });
        }
    })
    .await;
}

/// A connection to `address` with the client's record on it.
pub(super) async fn dial(
    client: &TcpStream,
    address: SocketAddr,
    routes: &impl Routes,
    options: &Options,
) -> io::Result<TcpStream> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    if let Some(silence) = options.keepalive {
        let silence = silence.max(Duration::from_secs(1)); // the kernel counts seconds
        SockRef::from(&socket).set_tcp_keepalive(&TcpKeepalive::new().with_time(silence).with_interval(silence))?;
    }
    routes.carry(client, &socket).map_err(|error| io::Error::new(error.io_error().kind(), error))?;
    let connected = socket.connect(address);
    match options.connect_timeout {
        Some(limit) => time::timeout(limit, connected).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())),
        None => connected.await,
    }
}
