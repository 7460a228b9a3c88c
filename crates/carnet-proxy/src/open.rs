//! Opening TLS: what a client encrypts is read, and goes on encrypted anew.
//!
//! ```text
//! client ══ TLS, a leaf of the local authority ══► tls ──► http ──► exchange ──► tls ══ TLS, verified ══► server
//!                                                             └── body: scan, HAR
//! ```
//!
//! The server comes first: its certificate is verified and its protocol (ALPN) chosen, and the client is answered with the
//! same protocol. So both sides speak one language, and one connection of a client is one connection to its server. What
//! cannot be opened or read is passed on untouched or refused, as the rule says ([`Unread`](crate::rules::Unread)).
//!
//! What a user sees of this is in `docs/open.md`, and why it is so in
//! `docs/adr/0032-the-server-is-asked-first-when-tls-is-opened.md`.

mod body;
mod event;
mod exchange;
mod flow;
mod http;
mod inside;
mod page;
mod pins;
mod prefixed;
mod tapped;
mod tls;
mod tunnel;

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, pem::PemObject},
};

pub use self::event::{Event, Inside, OpenReport, Why};
pub(crate) use self::{
    flow::{Begun, OpenFlow, Subject},
    tls::Dialled,
};
use self::{pins::Pins, tls::Tls};
use crate::{ca::Authority, har::Har, scan::Scan};

/// What is needed to open flows; one for all flows of a service.
pub struct Opener {
    tls: Tls,
    pins: Pins,
    har: Option<Har>,
    scan: Option<Arc<dyn Scan>>,
}

/// Why no flow can be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file with further roots cannot be used.
    #[error("{} has no certificates that can be used; give a file in PEM form", path.display())]
    Roots {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// There is nobody to trust.
    #[error("this system trusts no authority; install its ca-certificates, or name a file with roots")]
    NoRoots,
    /// The TLS library does not agree.
    #[error("TLS cannot be set up")]
    Tls {
        /// The cause.
        #[from]
        source: rustls::Error,
    },
}

impl Opener {
    /// Answers clients with certificates of `authority`, and verifies servers by `roots`.
    ///
    /// # Errors
    ///
    /// [`Error::NoRoots`], [`Error::Tls`].
    pub fn new(authority: Arc<Authority>, roots: RootCertStore) -> Result<Self, Error> {
        if roots.is_empty() {
            return Err(Error::NoRoots);
        }
        Ok(Self { tls: Tls::new(authority, roots)?, pins: Pins::default(), har: None, scan: None })
    }

    /// The same, and every exchange of HTTP is written down.
    #[must_use]
    pub fn recording(self, har: Har) -> Self {
        Self { har: Some(har), ..self }
    }

    /// The same, and every body of HTTP is looked at before it goes on.
    #[must_use]
    pub fn scanning(self, scan: Arc<dyn Scan>) -> Self {
        Self { scan: Some(scan), ..self }
    }
}

impl fmt::Debug for Opener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opener").field("har", &self.har).field("scan", &self.scan).finish_non_exhaustive()
    }
}

/// Who vouches for servers: whom this system trusts (`SSL_CERT_FILE` and `SSL_CERT_DIR` name others), and those of a file.
///
/// # Errors
///
/// [`Error::Roots`], [`Error::NoRoots`].
pub fn roots(more: Option<&Path>) -> Result<RootCertStore, Error> {
    let mut roots = RootCertStore::empty();
    // One that cannot be read is left out, as every program does: then what it vouches for is not verified.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if let Some(path) = more {
        let wrong = |source: Box<dyn std::error::Error + Send + Sync>| Error::Roots { path: path.to_owned(), source };
        let certificates = CertificateDer::pem_file_iter(path).map_err(|error| wrong(error.into()))?;
        let certificates: Vec<_> = certificates.collect::<Result<_, _>>().map_err(|error| wrong(error.into()))?;
        if certificates.is_empty() {
            return Err(wrong("there is none in it".into()));
        }
        for certificate in certificates {
            roots.add(certificate).map_err(|error| wrong(error.into()))?;
        }
    }
    if roots.is_empty() { Err(Error::NoRoots) } else { Ok(roots) }
}

#[cfg(test)]
mod tests;
