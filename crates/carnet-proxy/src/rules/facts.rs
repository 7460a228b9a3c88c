use std::{net::SocketAddr, path::Path};

/// What is known of a flow when it is decided. A condition on what is not known does not hold.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'f> {
    /// The name that the client asks for, without a port. Of a hello that is encrypted (ECH): the outer one's.
    pub name: Option<&'f str>,
    /// What the client speaks; `None` where its first bytes are something else, or have not come.
    pub protocol: Option<Protocol>,
    /// Protocols that a TLS client offers (ALPN).
    pub alpn: &'f [String],
    /// JA4 fingerprint of a TLS client.
    pub ja4: Option<&'f str>,
    /// Whether a TLS client has an encrypted hello (ECH).
    pub ech: bool,
    /// Where the application was going.
    pub destination: SocketAddr,
    /// Whose flow it is.
    pub origin: Origin<'f>,
}

/// Whose a flow is, as far as that is known.
#[derive(Clone, Copy, Debug, Default)]
pub struct Origin<'f> {
    /// User.
    pub uid: Option<u32>,
    /// The program's path.
    pub exe: Option<&'f Path>,
    /// The cgroup's path from the root cgroup on; it begins with a slash.
    pub cgroup: Option<&'f str>,
}

/// What a client speaks.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Protocol {
    /// TLS.
    Tls,
    /// HTTP/1 in clear text.
    Http1,
    /// HTTP/2 in clear text.
    Http2,
    /// SSH.
    Ssh,
}
