//! Key and certificate of the authority, and the signing with them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData, SanType, SerialNumber,
};
use ring::rand::{SecureRandom, SystemRandom};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, pem::PemObject};
use time::OffsetDateTime;

use super::{
    BACK_DATED, Certificate, Error, LEAF_VALIDITY, LeafError, VALIDITY,
    certificate::{ORGANIZATION, armour},
};

/// What signs.
pub struct Issuer {
    certificate: Certificate,
    signer: rcgen::Issuer<'static, KeyPair>,
}

/// A certificate that was signed, and when it holds.
pub struct Signed {
    pub der: CertificateDer<'static>,
    pub not_before: SystemTime,
    pub not_after: SystemTime,
}

impl Issuer {
    /// A new one, with a new key.
    pub fn make(now: SystemTime) -> Result<Self, Error> {
        let key = KeyPair::generate().map_err(|source| Error::Make { source })?;
        let begin = now.checked_sub(BEFORE_ITS_LEAVES).unwrap_or(now);
        let no_date = || Error::System { what: "the clock has no date that a certificate can have" };
        let (Some(today), Some(not_before), Some(not_after)) = (date(now), date(begin), date(now + VALIDITY)) else {
            return Err(no_date());
        };
        let serial = serial().ok_or(Error::System { what: "there are no random numbers" })?;
        let mut parameters = parameters(&name(today, &serial));
        parameters.not_before = not_before;
        parameters.not_after = not_after;
        parameters.serial_number = Some(serial);
        let signed = parameters.self_signed(&key).map_err(|source| Error::Make { source })?;
        let certificate = Certificate::from_der(signed.der().clone()).ok_or_else(no_date)?;
        Ok(Self { certificate, signer: rcgen::Issuer::new(parameters, key) })
    }

    /// Reads what [`Issuer::to_pem`] writes. The error says what is wrong.
    pub fn from_pem(pem: &[u8]) -> Result<Self, &'static str> {
        let certificate = Certificate::from_pem(pem).ok_or("has no certificate of Carnet's")?;
        let key = PrivatePkcs8KeyDer::from_pem_slice(pem).map_err(|_| "has no key")?;
        let key = KeyPair::from_pkcs8_der_and_sign_algo(&key, &PKCS_ECDSA_P256_SHA256)
            .map_err(|_| "has no key of the kind that Carnet makes")?;
        if certificate.public_key().as_deref() != Some(key.der_bytes()) {
            return Err("has a key and a certificate that do not belong together");
        }
        Ok(Self { signer: rcgen::Issuer::new(parameters(certificate.name()), key), certificate })
    }

    /// Key and certificate.
    pub fn to_pem(&self) -> String {
        armour("PRIVATE KEY", self.signer.key().serialized_der()) + &self.certificate.pem()
    }

    /// The certificate.
    pub fn certificate(&self) -> &Certificate {
        &self.certificate
    }

    /// Signs a certificate for a server, which ends no later than the authority.
    pub fn sign(&self, server: SanType, key: &KeyPair, now: SystemTime) -> Result<Signed, LeafError> {
        if now < self.certificate.not_before() || now >= self.certificate.not_after() {
            return Err(LeafError::NotValidNow);
        }
        let not_before = now.checked_sub(BACK_DATED).unwrap_or(now).max(self.certificate.not_before());
        let not_after = (now + LEAF_VALIDITY).min(self.certificate.not_after());
        let mut parameters = CertificateParams::default();
        parameters.distinguished_name = subject(None);
        parameters.subject_alt_names = vec![server];
        parameters.not_before = date(not_before).ok_or(LeafError::NotValidNow)?;
        parameters.not_after = date(not_after).ok_or(LeafError::NotValidNow)?;
        parameters.is_ca = IsCa::ExplicitNoCa;
        parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        parameters.use_authority_key_identifier_extension = true;
        // rcgen would take it from the key, which all leaves share: browsers refuse two certificates of one number.
        parameters.serial_number = Some(serial().ok_or(LeafError::Random)?);
        let signed = parameters.signed_by(key, &self.signer).map_err(|source| LeafError::Sign { source })?;
        Ok(Signed { der: signed.der().clone(), not_before, not_after })
    }
}

/// What an authority is, but for its dates and number: it signs certificates of servers, and none of other authorities.
fn parameters(name: &str) -> CertificateParams {
    let mut parameters = CertificateParams::default();
    parameters.distinguished_name = subject(Some(name));
    parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    parameters
}

fn subject(name: Option<&str>) -> DistinguishedName {
    let mut subject = DistinguishedName::new();
    if let Some(name) = name {
        subject.push(DnType::CommonName, name);
    }
    subject.push(DnType::OrganizationName, ORGANIZATION);
    subject
}

/// A name may have 64 characters, and a host's name as many. Each is another one: of two with one name OpenSSL may try
/// only the first.
fn name(today: OffsetDateTime, serial: &SerialNumber) -> String {
    let number: String = serial.to_bytes().iter().take(4).map(|byte| format!("{byte:02x}")).collect();
    let host: String = rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .chars()
        .filter(|character| character.is_ascii_alphanumeric() || matches!(character, '-' | '.' | '_'))
        .take(36)
        .collect();
    let (year, month, day) = today.to_calendar_date();
    format!("Carnet {host} {year:04}-{:02}-{day:02} {number}", u8::from(month))
}

/// To the second, as certificates have it.
fn date(time: SystemTime) -> Option<OffsetDateTime> {
    let seconds = time.duration_since(UNIX_EPOCH).ok()?.as_secs();
    OffsetDateTime::from_unix_timestamp(i64::try_from(seconds).ok()?).ok()
}

/// Random, positive, and of 16 bytes.
fn serial() -> Option<SerialNumber> {
    let mut bytes = [0; 16];
    SystemRandom::new().fill(&mut bytes).ok()?;
    bytes[0] = bytes[0] & 0x7f | 0x40;
    Some(SerialNumber::from_slice(&bytes))
}

/// How long before now the authority begins, so that its leaves can be back-dated.
const BEFORE_ITS_LEAVES: Duration = Duration::from_hours(24);
