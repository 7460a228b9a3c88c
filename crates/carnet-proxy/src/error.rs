use std::{io, net::SocketAddr};

/// Why the service cannot begin.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An address cannot be listened on.
    #[error("cannot listen on {address}; give an address of this host with a free port")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// The cause.
        source: io::Error,
    },
    /// What was given as a listener is no usable one.
    #[error("listener {index} cannot be used; give TCP sockets that listen")]
    Listener {
        /// Its place among those given, from 0.
        index: usize,
        /// The cause.
        source: io::Error,
    },
    /// There was no address and no listener.
    #[error("there is nothing to listen on; give at least one address")]
    NoListener,
}
