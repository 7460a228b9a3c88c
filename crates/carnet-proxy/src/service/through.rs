//! A flow that goes on through somebody else's proxy.

use std::io;

use tokio::net::{TcpStream, lookup_host};

use super::{Desk, flow::dial, route::Routes};
use crate::{
    rules,
    upstream::{Target, Upstream},
};

/// A connection that leads to the target. The first of the upstream's addresses that answers is taken.
pub(super) async fn through<T: Routes, R>(
    rule: &rules::Upstream,
    target: &Target<'_>,
    client: &TcpStream,
    desk: &Desk<T, R>,
) -> io::Result<TcpStream> {
    let of_rule = |source: io::Error| io::Error::new(source.kind(), Unusable { upstream: rule.name.clone(), source });
    let mut last = io::ErrorKind::AddrNotAvailable.into();
    for address in lookup_host((&*rule.host, rule.port)).await.map_err(of_rule)? {
        let upstream = Upstream::new(rule.kind, address, rule.credentials.clone());
        let upstream = upstream.map_err(|mistake| of_rule(io::Error::other(mistake)))?.by_name(rule.by_name);
        match dial(client, address, &desk.routes, &desk.options).await {
            Ok(mut stream) => {
                // Whatever it answers, another of its addresses would, too.
                upstream.greet(&mut stream, target).await.map_err(|error| of_rule(error.into()))?;
                return Ok(stream);
            }
            Err(error) => last = error,
        }
    }
    Err(of_rule(last))
}

/// Why a flow does not get through the upstream of its rule.
#[derive(Debug, thiserror::Error)]
#[error("the upstream {upstream:?} cannot be used")]
struct Unusable {
    upstream: String,
    source: io::Error,
}
