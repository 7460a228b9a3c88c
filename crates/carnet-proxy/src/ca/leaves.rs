//! Certificates of servers, and those that are kept.

use std::{
    net::IpAddr,
    num::NonZeroUsize,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use lru::LruCache;
use rcgen::{KeyPair, SanType};
use rustls::{
    crypto::ring::sign::any_ecdsa_type,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer, ServerName},
    sign::{CertifiedKey, SigningKey},
};

use super::{Error, LeafError, issuer::Issuer};

pub struct Leaves {
    issuer: Issuer,
    /// One for all: to make a key for each server would take longer than to sign, and protect nothing more.
    key: KeyPair,
    signing: Arc<dyn SigningKey>,
    kept: Mutex<LruCache<Server, Leaf>>,
}

#[derive(Clone, Eq, Hash, PartialEq)]
enum Server {
    /// In small letters, without a dot at the end.
    Name(String),
    Address(IpAddr),
}

struct Leaf {
    certified: Arc<CertifiedKey>,
    not_before: SystemTime,
    not_after: SystemTime,
}

impl Leaves {
    pub fn new(issuer: Issuer) -> Result<Self, Error> {
        let key = KeyPair::generate().map_err(|source| Error::Make { source })?;
        let der = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialized_der()));
        let signing = any_ecdsa_type(&der).map_err(|_| Error::System { what: "its key cannot be used for TLS" })?;
        Ok(Self { issuer, key, signing, kept: Mutex::new(LruCache::new(LEAVES)) })
    }

    pub fn leaf(&self, server: &ServerName<'_>, now: SystemTime) -> Result<Arc<CertifiedKey>, LeafError> {
        let server = Server::of(server)?;
        let last = self.issuer.certificate().not_after();
        if let Some(leaf) = self.kept().get(&server)
            && leaf.not_before <= now
            && now < leaf.not_after
            && (leaf.not_after == last || leaf.not_after > now + RENEWED_BEFORE)
        {
            return Ok(Arc::clone(&leaf.certified));
        }
        // Not while the others wait. Two that ask for one server at once may both sign.
        let signed = self.issuer.sign(server.subject()?, &self.key, now)?;
        let certified = Arc::new(CertifiedKey::new(vec![signed.der], Arc::clone(&self.signing)));
        let leaf =
            Leaf { certified: Arc::clone(&certified), not_before: signed.not_before, not_after: signed.not_after };
        self.kept().put(server, leaf);
        Ok(certified)
    }

    pub fn len(&self) -> usize {
        self.kept().len()
    }

    fn kept(&self) -> MutexGuard<'_, LruCache<Server, Leaf>> {
        // Each call leaves the cache whole, whoever panicked.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Server {
    fn of(name: &ServerName<'_>) -> Result<Self, LeafError> {
        match name {
            ServerName::DnsName(name) => {
                let name = name.as_ref();
                Ok(Self::Name(name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()))
            }
            ServerName::IpAddress(address) => Ok(Self::Address((*address).into())),
            _ => Err(LeafError::Name),
        }
    }

    fn subject(&self) -> Result<SanType, LeafError> {
        Ok(match self {
            Self::Name(name) => SanType::DnsName(name.as_str().try_into().map_err(|_| LeafError::Name)?),
            Self::Address(address) => SanType::IpAddress(*address),
        })
    }
}

/// How many certificates of servers are kept. Each takes about a kilobyte.
pub const LEAVES: NonZeroUsize = NonZeroUsize::new(1024).unwrap();

/// A connection may be open for a while after its certificate was sent.
const RENEWED_BEFORE: Duration = Duration::from_hours(24);
