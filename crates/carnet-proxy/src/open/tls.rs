//! Both handshakes: the server's first, then the client's.

use std::{
    io,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use rustls::{
    AlertDescription, ClientConfig, RootCertStore, ServerConfig, SignatureScheme, client::ResolvesClientCert,
    crypto::ring, pki_types::ServerName, sign::CertifiedKey,
};
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

use super::prefixed::{Client, Prefixed};
use crate::ca::Authority;

/// What all flows' handshakes have in common.
#[derive(Debug)]
pub(super) struct Tls {
    authority: Arc<Authority>,
    as_client: ClientConfig,
    as_server: ServerConfig,
}

/// A server, when its handshake has ended.
pub(crate) enum Dialled {
    /// It is who it says it is.
    Verified(Box<client::TlsStream<TcpStream>>),
    /// It asks for a certificate of the client, which nobody has but the client.
    AsksForCertificate,
    /// There is no TLS with it, or it is not who it should be.
    Untrusted(io::Error),
}

/// How a client's handshake ended.
pub(super) enum Accepted {
    /// It trusts us.
    Trusts(Box<server::TlsStream<Prefixed<Client>>>),
    /// It does not.
    Distrusts,
    /// It speaks TLS in no way that we do.
    Incompatible(String),
    /// It went wrong in another way.
    Failed(String),
}

impl Tls {
    pub(super) fn new(authority: Arc<Authority>, roots: RootCertStore) -> Result<Self, rustls::Error> {
        let provider = Arc::new(ring::default_provider());
        let as_client = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let as_server = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(authority.resolver(None));
        Ok(Self { authority, as_client, as_server })
    }

    /// Asks a server for the name its client asks for, and offers what the client offers.
    pub(super) async fn dial(&self, server: TcpStream, name: Option<&str>, alpn: &[String], to: IpAddr) -> Dialled {
        let asked = Arc::new(Asked::default());
        let mut config = self.as_client.clone();
        config.alpn_protocols = offered(alpn);
        config.client_auth_cert_resolver = Arc::clone(&asked) as _;
        let name = match name {
            Some(name) => match ServerName::try_from(name.to_owned()) {
                Ok(name) => name,
                Err(error) => return Dialled::Untrusted(io::Error::other(error)),
            },
            None => ServerName::IpAddress(to.into()),
        };
        let connected = TlsConnector::from(Arc::new(config)).connect(name, server);
        let result = timeout(HANDSHAKE, connected).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        match result {
            // Whether it would have been content without one cannot be known.
            _ if asked.0.load(Ordering::Relaxed) => Dialled::AsksForCertificate,
            Ok(stream) => Dialled::Verified(Box::new(stream)),
            Err(error) => Dialled::Untrusted(error),
        }
    }

    /// Answers a client, with the protocol that its server has chosen.
    pub(super) async fn accept(
        &self,
        client: Prefixed<Client>,
        name: Option<&str>,
        alpn: Option<&[u8]>,
        to: IpAddr,
    ) -> Accepted {
        let mut config = self.as_server.clone();
        config.alpn_protocols = alpn.into_iter().map(<[u8]>::to_vec).collect();
        if name.is_none() {
            config.cert_resolver = self.authority.resolver(Some(to));
        }
        match timeout(HANDSHAKE, TlsAcceptor::from(Arc::new(config)).accept(client)).await {
            // What the rules have decided by, and what the server was asked for, is what the client gets.
            Ok(Ok(stream)) if stream.get_ref().1.server_name().map(plain) == name.map(plain) => {
                Accepted::Trusts(Box::new(stream))
            }
            Ok(Ok(_)) => Accepted::Failed("it has two names".into()),
            Ok(Err(error)) if is_distrust(&error) => Accepted::Distrusts,
            Ok(Err(error)) if is_incompatible(&error) => Accepted::Incompatible(error.to_string()),
            Ok(Err(error)) => Accepted::Failed(error.to_string()),
            Err(_) => Accepted::Failed("it takes too long".into()),
        }
    }
}

fn plain(name: &str) -> String {
    name.trim_end_matches('.').to_ascii_lowercase()
}

/// What can be read, of what the client offers; all of it, where it offers nothing that can.
fn offered(alpn: &[String]) -> Vec<Vec<u8>> {
    let bytes = |protocol: &String| protocol.as_bytes().to_vec();
    let readable: Vec<_> = alpn.iter().filter(|protocol| READABLE.contains(&protocol.as_str())).map(bytes).collect();
    if readable.is_empty() { alpn.iter().map(bytes).collect() } else { readable }
}

/// The client says that it does not accept the certificate, or goes away when it has seen it.
pub(super) fn is_distrust(error: &io::Error) -> bool {
    let Some(source) = error.get_ref() else { return is_gone(error) };
    match source.downcast_ref::<rustls::Error>() {
        Some(rustls::Error::AlertReceived(alert)) => matches!(
            alert,
            AlertDescription::UnknownCA
                | AlertDescription::BadCertificate
                | AlertDescription::UnsupportedCertificate
                | AlertDescription::CertificateUnknown
                | AlertDescription::CertificateRevoked
                | AlertDescription::CertificateExpired
        ),
        _ => is_gone(error),
    }
}

/// There is no version, cipher or kind of signature that both sides have.
fn is_incompatible(error: &io::Error) -> bool {
    let error = error.get_ref().and_then(|source| source.downcast_ref::<rustls::Error>());
    match error {
        Some(rustls::Error::PeerIncompatible(_)) => true,
        Some(rustls::Error::AlertReceived(alert)) => matches!(
            alert,
            AlertDescription::HandshakeFailure
                | AlertDescription::ProtocolVersion
                | AlertDescription::InsufficientSecurity
                | AlertDescription::NoApplicationProtocol
        ),
        _ => false,
    }
}

fn is_gone(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe)
}

/// Has no certificate, and knows whether one was asked for.
#[derive(Debug, Default)]
struct Asked(AtomicBool);

impl ResolvesClientCert for Asked {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.0.store(true, Ordering::Relaxed);
        None
    }

    fn has_certs(&self) -> bool {
        false
    }
}

/// Protocols that can be read.
const READABLE: [&str; 2] = ["h2", "http/1.1"];

/// How long a handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(15);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_offered_what_can_be_read() {
        for (client, server) in [
            (&["h2", "http/1.1"][..], &["h2", "http/1.1"][..]),
            (&["spdy/1", "http/1.1"], &["http/1.1"]),
            (&["imap"], &["imap"]),
            (&[], &[]),
        ] {
            let client: Vec<_> = client.iter().map(ToString::to_string).collect();
            let server: Vec<_> = server.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
            assert_eq!(offered(&client), server);
        }
    }
}
