//! What a command's environment says of whom it trusts.

use std::{
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
};

use super::{
    Certificate, Error,
    folder::{BUNDLE, CERTIFICATE, Folder},
};

/// What a variable of the environment names.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Trusts {
    /// All that is trusted.
    Bundle,
    /// What is trusted besides what the program knows.
    Certificate,
}

impl Trusts {
    /// The file, of the authority in a folder.
    pub fn path(self, folder: &Path) -> PathBuf {
        folder.join(match self {
            Self::Bundle => BUNDLE,
            Self::Certificate => CERTIFICATE,
        })
    }
}

/// Makes the file of all that the system trusts, and the authority. It is made again by each call, for the system's
/// changes. Where the folder is somebody else's, what is there has to do.
pub fn write_bundle(folder: &Path, system: &Path) -> Result<PathBuf, Error> {
    let certificate = Certificate::read(folder)?;
    let path = Trusts::Bundle.path(folder);
    let mut bundle = match fs::read(system) {
        Ok(bundle) => bundle,
        Err(error) if error.kind() == ErrorKind::NotFound => return Err(Error::NoSystemBundle),
        Err(source) => return Err(Error::Read { path: system.to_owned(), source }),
    };
    if !bundle.is_empty() && !bundle.ends_with(b"\n") {
        bundle.push(b'\n');
    }
    bundle.extend_from_slice(certificate.pem().as_bytes());
    if fs::read(&path).is_ok_and(|there| there == bundle) {
        return Ok(path);
    }
    match Folder::open(folder) {
        Ok(folder) => folder.write_public(BUNDLE, &bundle)?,
        Err(Error::Unsafe { .. }) if path.exists() => {}
        Err(error) => return Err(error),
    }
    Ok(path)
}

/// What programs and libraries look at: OpenSSL and those built on it (Ruby, PHP, Go); curl; Python's requests and pip;
/// git; the AWS tools; Node.
pub const ENVIRONMENT: [(&str, Trusts); 6] = [
    ("SSL_CERT_FILE", Trusts::Bundle),
    ("CURL_CA_BUNDLE", Trusts::Bundle),
    ("REQUESTS_CA_BUNDLE", Trusts::Bundle),
    ("GIT_SSL_CAINFO", Trusts::Bundle),
    ("AWS_CA_BUNDLE", Trusts::Bundle),
    ("NODE_EXTRA_CA_CERTS", Trusts::Certificate),
];

/// Where systems have all that they trust: Debian and Alpine; Fedora; openSUSE.
pub const SYSTEM_BUNDLES: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/ca-bundle.pem"];
