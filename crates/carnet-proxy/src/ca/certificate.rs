//! The public part: what others are given.

use std::{
    fs::File,
    io::{ErrorKind, Read},
    path::Path,
    time::SystemTime,
};

use base64::{Engine, prelude::BASE64_STANDARD};
use ring::digest;
use rustls::pki_types::{CertificateDer, pem::PemObject};
use x509_cert::{Certificate as Parsed, der::Decode};

use super::{Error, folder::CERTIFICATE};

/// The certificate of an authority.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Certificate {
    der: CertificateDer<'static>,
    name: String,
    not_before: SystemTime,
    not_after: SystemTime,
}

impl Certificate {
    /// That of the authority in a folder, for which no right is needed but to read it.
    pub fn read(folder: &Path) -> Result<Self, Error> {
        let path = folder.join(CERTIFICATE);
        let mut pem = Vec::new();
        match File::open(&path).and_then(|file| file.take(LONGEST).read_to_end(&mut pem)) {
            Ok(_) => Self::from_pem(&pem).ok_or(Error::Broken { path, what: "is no certificate of Carnet's" }),
            Err(error) if error.kind() == ErrorKind::NotFound => Err(Error::None { folder: folder.to_owned() }),
            Err(source) => Err(Error::Read { path, source }),
        }
    }

    /// Reads what [`Certificate::pem`] writes. `None`: it is not that, or not of an authority that Carnet made.
    pub fn from_pem(pem: &[u8]) -> Option<Self> {
        Self::from_der(CertificateDer::from_pem_slice(pem).ok()?)
    }

    pub(super) fn from_der(der: CertificateDer<'static>) -> Option<Self> {
        let parsed = Parsed::from_der(&der).ok()?;
        let tbs = parsed.tbs_certificate();
        // Exactly the two parts that an issuer's name is made of again: else leaves would name another issuer.
        let [name, organization] = [tbs.subject().common_name(), tbs.subject().organization()];
        if tbs.subject().len() != 2 || tbs.subject() != tbs.issuer() || organization.ok()??.value() != ORGANIZATION {
            return None;
        }
        Some(Self {
            name: name.ok()??.value().into_owned(),
            not_before: tbs.validity().not_before.to_system_time(),
            not_after: tbs.validity().not_after.to_system_time(),
            der,
        })
    }

    /// In the form that programs read.
    pub fn pem(&self) -> String {
        armour("CERTIFICATE", &self.der)
    }

    /// In the form that libraries take.
    pub fn der(&self) -> &CertificateDer<'static> {
        &self.der
    }

    /// Its name, in which are the host's name and the day it was made.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// For whom it is.
    pub fn subject(&self) -> String {
        format!("CN={}, O={ORGANIZATION}", self.name)
    }

    /// When it begins to be valid.
    pub fn not_before(&self) -> SystemTime {
        self.not_before
    }

    /// When it ends.
    pub fn not_after(&self) -> SystemTime {
        self.not_after
    }

    /// SHA-256 of it, as `openssl x509 -fingerprint -sha256` and browsers print it.
    pub fn fingerprint(&self) -> String {
        let bytes: Vec<_> = self.digest().as_ref().iter().map(|byte| format!("{byte:02X}")).collect();
        bytes.join(":")
    }

    /// The first eight digits of the fingerprint, which files are named by.
    pub fn short(&self) -> String {
        self.digest().as_ref().iter().take(4).map(|byte| format!("{byte:02x}")).collect()
    }

    /// The public key, as the point that it is.
    pub(super) fn public_key(&self) -> Option<Vec<u8>> {
        let parsed = Parsed::from_der(&self.der).ok()?;
        Some(parsed.tbs_certificate().subject_public_key_info().subject_public_key.raw_bytes().to_vec())
    }

    fn digest(&self) -> digest::Digest {
        digest::digest(&digest::SHA256, &self.der)
    }
}

/// Bytes between lines that say what they are.
pub(super) fn armour(what: &str, der: &[u8]) -> String {
    let mut text = format!("-----BEGIN {what}-----\n");
    let body = BASE64_STANDARD.encode(der);
    let mut rest = body.as_str();
    while !rest.is_empty() {
        let (line, behind) = rest.split_at(rest.len().min(64));
        text.push_str(line);
        text.push('\n');
        rest = behind;
    }
    text.push_str(&format!("-----END {what}-----\n"));
    text
}

/// Whose it says to be.
pub(super) const ORGANIZATION: &str = "Carnet";

/// No file of ours is longer.
pub(super) const LONGEST: u64 = 64 * 1024;
