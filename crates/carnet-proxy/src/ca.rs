//! The local certificate authority, with which TLS is opened: it vouches for servers to programs that trust it.
//!
//! Whoever has its key can pretend to be any server to those programs, so the key is in a file that only its owner can
//! read, is not used where others could have read or changed it, and never leaves this module. What enters are names
//! and addresses of servers; what leaves are certificates for them, made at once and kept while there is room. Nothing
//! here reads or writes a connection, and nothing here makes anybody trust the authority.
//!
//! ```no_run
//! use std::sync::Arc;
//! use carnet_proxy::ca::Authority;
//!
//! # fn example(destination: std::net::IpAddr) -> Result<(), Box<dyn std::error::Error>> {
//! let authority = Arc::new(Authority::open_or_create("/var/lib/carnet/ca".as_ref())?);
//! let certified = authority.leaf(&"example.com".try_into()?)?;
//! // As a part of a TLS server: for the name in the hello, or the address where there is none.
//! let resolver = authority.resolver(Some(destination));
//! # Ok(())
//! # }
//! ```
//!
//! # Files
//!
//! The folder has `authority.pem` (key and certificate, mode 0600: whole or not there), `ca.crt` (the certificate, for
//! everybody), `bundle.crt` (what the system trusts, and this), `retired-*.crt` (certificates that were replaced), and
//! `lock`, which makes processes take turns.

mod bundle;
mod certificate;
mod error;
mod folder;
mod issuer;
mod leaves;

use std::{
    fmt,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use rustls::{
    pki_types::ServerName,
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};

pub use self::{
    bundle::{ENVIRONMENT, SYSTEM_BUNDLES, Trusts, write_bundle},
    certificate::Certificate,
    error::{Error, LeafError, Problem},
    leaves::LEAVES,
};
use self::{folder::Folder, issuer::Issuer, leaves::Leaves};

/// A certificate authority whose key is in a folder of this user's.
pub struct Authority {
    folder: PathBuf,
    certificate: Certificate,
    origin: Origin,
    leaves: Leaves,
}

/// Since when there is an authority.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Origin {
    /// It was there.
    Existed,
    /// It was made just now, since there was none. Nobody trusts it yet.
    Made,
    /// It was made just now, in the place of one that is near its end. Who trusted that one does not trust this.
    MadeInsteadOf(Box<Certificate>),
}

impl Authority {
    /// The authority of a folder, which is made with its folder if there is none, or none that lasts for
    /// [`NEAR_THE_END`]. Of several processes that come at once, one makes it, and all get that one.
    pub fn open_or_create(folder: &Path) -> Result<Self, Error> {
        Self::open_or_create_at(folder, SystemTime::now())
    }

    /// The same at another time than now.
    pub fn open_or_create_at(folder: &Path, now: SystemTime) -> Result<Self, Error> {
        let opened = Folder::open_or_create(folder)?;
        let (issuer, origin) = match opened.read_secret()? {
            None => (Self::make(&opened, now)?, Origin::Made),
            Some(pem) => {
                let issuer =
                    Issuer::from_pem(&pem).map_err(|what| Error::Broken { path: opened.secret_path(), what })?;
                if issuer.certificate().not_after() > now + NEAR_THE_END {
                    (issuer, Origin::Existed)
                } else {
                    let ended = issuer.certificate().clone();
                    opened.retire(&ended)?;
                    (Self::make(&opened, now)?, Origin::MadeInsteadOf(Box::new(ended)))
                }
            }
        };
        // After the key, and again whenever it is not what the key's file says: a process may have ended in between.
        opened.write_certificate(issuer.certificate())?;
        let certificate = issuer.certificate().clone();
        Ok(Self { folder: folder.to_owned(), certificate, origin, leaves: Leaves::new(issuer)? })
    }

    fn make(opened: &Folder, now: SystemTime) -> Result<Issuer, Error> {
        let issuer = Issuer::make(now)?;
        opened.write_secret(issuer.to_pem().as_bytes())?;
        Ok(issuer)
    }

    /// Its folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// What others are given, so that they trust it.
    pub fn certificate(&self) -> &Certificate {
        &self.certificate
    }

    /// Whether it was there or made by this call.
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// Certificate and key for a server. All of a process have one key. It is made once and kept, until there is no room
    /// for more than [`LEAVES`], or its end is near.
    pub fn leaf(&self, server: &ServerName<'_>) -> Result<Arc<CertifiedKey>, LeafError> {
        self.leaves.leaf(server, SystemTime::now())
    }

    /// How many certificates of servers are kept, at most [`LEAVES`].
    pub fn leaves_kept(&self) -> usize {
        self.leaves.len()
    }

    /// What rustls asks for a certificate: that for the name in a hello, or for the address if a hello has no name.
    /// Without either the handshake fails.
    pub fn resolver(self: &Arc<Self>, destination: Option<IpAddr>) -> Arc<dyn ResolvesServerCert> {
        Arc::new(Resolver { authority: Arc::clone(self), destination })
    }
}

impl fmt::Debug for Authority {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Authority").field("folder", &self.folder).finish_non_exhaustive()
    }
}

/// Removes the files of an authority, and the folder if nothing else is in it. Says which were there.
pub fn remove(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    folder::remove(folder)
}

/// Certificates of authorities that were in a folder before the one that is there now.
pub fn retired(folder: &Path) -> Vec<Certificate> {
    folder::retired(folder)
}

#[derive(Debug)]
struct Resolver {
    authority: Arc<Authority>,
    destination: Option<IpAddr>,
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let server = match hello.server_name() {
            Some(name) => ServerName::try_from(name).ok()?,
            None => ServerName::IpAddress(self.destination?.into()),
        };
        self.authority.leaf(&server).ok()
    }
}

/// How long an authority vouches for servers: two years.
pub const VALIDITY: Duration = Duration::from_hours(2 * 365 * 24);

/// When an authority has no longer than this, a new one is made: longer than a server's certificate lasts.
pub const NEAR_THE_END: Duration = Duration::from_hours(45 * 24);

/// How long a server's certificate is valid. Programs refuse more than 398 days.
pub const LEAF_VALIDITY: Duration = Duration::from_hours(30 * 24);

/// How long before it is made a server's certificate begins to be valid, for clocks that are behind.
pub const BACK_DATED: Duration = Duration::from_hours(1);
