//! The local authority: its files, and handshakes with what it signs.
#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::fs::{self, Permissions};
use std::net::IpAddr;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, LazyLock};
use std::thread;
use std::time::{Duration, SystemTime};

use carnet_proxy::ca::{
    self, Authority, BACK_DATED, Certificate, ENVIRONMENT, Error, LEAF_VALIDITY, LEAVES, LeafError, NEAR_THE_END,
    Origin, Problem, VALIDITY,
};
use proptest::prelude::*;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection, crypto::ring};
use tempfile::TempDir;
use x509_cert::der::Decode;

#[test]
fn a_client_that_trusts_the_authority_accepts_its_servers_and_no_other_name() {
    let place = Place::new();
    let authority = place.open();
    for name in ["example.com", "EXAMPLE.com", "a.b.c.example", "localhost", "under_score.example", "127.0.0.1", "::1"]
    {
        handshake(&authority, name, name).unwrap();
    }
    for (asked, got) in [("example.com", "example.org"), ("example.com", "127.0.0.1"), ("127.0.0.1", "127.0.0.2")] {
        let error = handshake(&authority, asked, got).unwrap_err().to_string();
        assert!(error.contains("not valid for name"), "{asked}, {got}: {error}");
    }
}

#[test]
fn a_client_that_does_not_trust_the_authority_refuses() {
    let (place, other) = (Place::new(), Place::new());
    let error = connect(&place.open(), other.open().certificate(), "example.com", None).unwrap_err().to_string();
    assert!(error.contains("UnknownIssuer") || error.contains("BadSignature"), "{error}");
}

#[test]
fn the_resolver_takes_the_name_in_the_hello_or_else_the_destination() {
    let place = Place::new();
    let authority = place.open();
    let destination = Some("192.0.2.1".parse().unwrap());
    connect(&authority, authority.certificate(), "example.com", destination).unwrap();
    connect(&authority, authority.certificate(), "192.0.2.1", destination).unwrap();
    // No hello has an address as a name, so without a destination there is nothing to make a certificate for.
    connect(&authority, authority.certificate(), "192.0.2.1", None).unwrap_err();
}

#[test]
fn it_is_made_once_and_is_the_same_afterwards() {
    let place = Place::new();
    let first = place.open();
    assert_eq!(first.origin(), &Origin::Made);
    let second = place.open();
    assert_eq!(second.origin(), &Origin::Existed);
    assert_eq!(second.certificate(), first.certificate());
    assert_eq!(&Certificate::read(&place.folder()).unwrap(), first.certificate());
    connect(&second, first.certificate(), "example.com", None).unwrap();
}

#[test]
fn of_many_that_come_at_once_one_makes_it() {
    let place = Place::new();
    let opened: Vec<Authority> = thread::scope(|scope| {
        let all: Vec<_> =
            (0..16).map(|_| scope.spawn(|| Authority::open_or_create(&place.folder()).unwrap())).collect();
        all.into_iter().map(|one| one.join().unwrap()).collect()
    });
    assert_eq!(opened.iter().filter(|one| one.origin() == &Origin::Made).count(), 1);
    assert!(opened.iter().all(|one| one.certificate() == opened[0].certificate()));
}

#[test]
fn the_key_is_for_its_owner_and_the_certificate_for_everybody() {
    let place = Place::new();
    place.open();
    for (name, mode) in [("authority.pem", 0o600), ("lock", 0o600), ("ca.crt", 0o644)] {
        assert_eq!(place.mode(name), mode, "{name}");
    }
    assert!(!fs::read_to_string(place.folder().join("ca.crt")).unwrap().contains("KEY"));
}

#[test]
fn what_others_could_have_read_or_changed_is_refused() {
    let place = Place::new();
    place.open();
    let folder = place.folder();
    let key = folder.join("authority.pem");

    chmod(&key, 0o640);
    assert_eq!(place.refusal(), (key.clone(), Problem::Readable { mode: 0o640 }));
    chmod(&key, 0o602);
    assert_eq!(place.refusal(), (key.clone(), Problem::Writable { mode: 0o602 }));
    chmod(&key, 0o600);

    chmod(&folder, 0o775);
    assert_eq!(place.refusal(), (folder.clone(), Problem::Writable { mode: 0o775 }));
    chmod(&folder, 0o755);

    let above = folder.parent().unwrap().to_owned();
    chmod(&above, 0o757);
    assert_eq!(place.refusal(), (above.clone(), Problem::Writable { mode: 0o757 }));
    chmod(&above, 0o1777);
    assert_eq!(place.open().origin(), &Origin::Existed);
}

#[test]
fn links_and_what_is_no_file_are_refused() {
    let place = Place::new();
    place.open();
    let key = place.folder().join("authority.pem");
    fs::rename(&key, place.folder().join("elsewhere")).unwrap();
    symlink("elsewhere", &key).unwrap();
    assert_eq!(place.refusal(), (key.clone(), Problem::Link));
    fs::remove_file(&key).unwrap();
    fs::create_dir(&key).unwrap();
    chmod(&key, 0o700);
    assert_eq!(place.refusal(), (key.clone(), Problem::Kind { expected: "regular file" }));

    let link = place.0.path().join("link");
    symlink(place.folder(), &link).unwrap();
    let Err(Error::Unsafe { problem, .. }) = Authority::open_or_create(&link) else { panic!("it is used") };
    assert_eq!(problem, Problem::Link);
}

#[test]
fn what_is_no_authority_is_told_and_left_alone() {
    let (place, other) = (Place::new(), Place::new());
    place.open();
    other.open();
    let key = place.folder().join("authority.pem");
    let whole = fs::read_to_string(&key).unwrap();
    let (mine, certificate) = whole.split_at(whole.find("-----BEGIN CERTIFICATE").unwrap());
    let theirs = fs::read_to_string(other.folder().join("ca.crt")).unwrap();
    for broken in [String::new(), "nonsense".into(), mine.into(), certificate.into(), format!("{mine}{theirs}")] {
        fs::write(&key, &broken).unwrap();
        let error = Authority::open_or_create(&place.folder()).unwrap_err();
        assert!(matches!(error, Error::Broken { .. }), "{error}");
        assert_eq!(fs::read_to_string(&key).unwrap(), broken);
    }
}

#[test]
fn one_that_was_killed_while_it_wrote_leaves_nothing_that_matters() {
    let place = Place::new();
    fs::create_dir(place.folder()).unwrap();
    fs::write(place.folder().join("authority.pem.new"), "half of a k").unwrap();
    let authority = place.open();
    assert_eq!(authority.origin(), &Origin::Made);
    fs::remove_file(place.folder().join("ca.crt")).unwrap();
    assert_eq!(place.open().origin(), &Origin::Existed);
    assert_eq!(&Certificate::read(&place.folder()).unwrap(), authority.certificate());
}

#[test]
fn near_its_end_a_new_one_is_made_and_said() {
    let place = Place::new();
    let now = SystemTime::now();
    let long_ago = now - VALIDITY + NEAR_THE_END;
    let old = Authority::open_or_create_at(&place.folder(), long_ago).unwrap().certificate().clone();
    let before = Authority::open_or_create_at(&place.folder(), now - Duration::from_secs(3600)).unwrap();
    assert_eq!(before.origin(), &Origin::Existed);

    let new = place.open();
    assert_eq!(new.origin(), &Origin::MadeInsteadOf(Box::new(old.clone())));
    assert_ne!(new.certificate().fingerprint(), old.fingerprint());
    assert_eq!(ca::retired(&place.folder()), [old]);
    connect(&new, new.certificate(), "example.com", None).unwrap();
}

#[test]
fn an_authority_that_has_ended_signs_nothing() {
    let place = Place::new();
    let ended =
        Authority::open_or_create_at(&place.folder(), SystemTime::now() - VALIDITY - Duration::from_secs(1)).unwrap();
    let error = ended.leaf(&"example.com".try_into().unwrap()).unwrap_err();
    assert!(matches!(error, LeafError::NotValidNow), "{error}");
}

#[test]
fn certificates_say_what_they_are_for_and_for_how_long() {
    let place = Place::new();
    let authority = place.open();
    let openssl = |der: &[u8]| {
        let path = place.0.path().join("shown.der");
        fs::write(&path, der).unwrap();
        let text = ["x509", "-inform", "der", "-noout", "-text", "-in"];
        let shown = Command::new("openssl").args(text).arg(&path).output().unwrap();
        assert!(shown.status.success());
        String::from_utf8(shown.stdout).unwrap()
    };
    let shown = openssl(authority.certificate().der());
    for expected in ["CA:TRUE, pathlen:0", "Certificate Sign\n", "TLS Web Server Authentication\n", "prime256v1"] {
        assert!(shown.contains(expected), "{expected}: {shown}");
    }
    let host: String = rustix::system::uname().nodename().to_string_lossy().chars().take(30).collect();
    assert!(authority.certificate().name().contains(&host), "{}", authority.certificate().name());
    assert!(authority.certificate().name().len() <= 64);

    let leaf = authority.leaf(&"example.com".try_into().unwrap()).unwrap();
    let shown = openssl(&leaf.cert[0]);
    for expected in ["CA:FALSE", "Digital Signature\n", "TLS Web Server Authentication\n", "DNS:example.com\n"] {
        assert!(shown.contains(expected), "{expected}: {shown}");
    }
    let (begin, end) = validity(&leaf.cert[0]);
    let (now, second) = (SystemTime::now(), Duration::from_secs(60));
    assert!(begin <= now - BACK_DATED && begin + second > now - BACK_DATED);
    assert!(end <= now + LEAF_VALIDITY && end > now + LEAF_VALIDITY - second);
    assert!(LEAF_VALIDITY < Duration::from_secs(398 * 24 * 3600) && LEAF_VALIDITY < NEAR_THE_END);
}

#[test]
fn two_authorities_of_a_host_and_a_day_have_two_names() {
    let (one, other) = (Place::new().open(), Place::new().open());
    assert_ne!(one.certificate().name(), other.certificate().name());
}

#[test]
fn leaves_share_a_key_but_no_serial_number() {
    let place = Place::new();
    let authority = place.open();
    let of = |name: &str| {
        let leaf = authority.leaf(&ServerName::try_from(name.to_owned()).unwrap()).unwrap();
        let parsed = x509_cert::Certificate::from_der(&leaf.cert[0]).unwrap();
        let tbs = parsed.tbs_certificate();
        (tbs.serial_number().clone(), tbs.subject_public_key_info().clone())
    };
    let (one, other) = (of("one.example"), of("other.example"));
    assert_ne!(one.0, other.0);
    assert_eq!(one.1, other.1);
}

#[test]
fn leaves_are_kept_up_to_a_bound_and_the_longest_unused_goes() {
    let place = Place::new();
    let authority = place.open();
    let leaf = |name: String| authority.leaf(&ServerName::try_from(name).unwrap()).unwrap();
    let first = leaf("first.example".into());
    let second = leaf("second.example".into());
    assert!(Arc::ptr_eq(&first, &leaf("FIRST.example.".into())));
    for number in 2..LEAVES.get() + 1 {
        leaf(format!("{number}.example"));
        assert!(Arc::ptr_eq(&first, &leaf("first.example".into())));
    }
    assert_eq!(authority.leaves_kept(), LEAVES.get());
    assert!(!Arc::ptr_eq(&second, &leaf("second.example".into())));
}

#[test]
fn removal_takes_what_is_ours_and_says_so() {
    let place = Place::new();
    let folder = place.folder();
    assert_eq!(ca::remove(&folder).unwrap(), Vec::<PathBuf>::new());

    place.open();
    fs::write(folder.join("system"), "of the system").unwrap();
    let bundle = ca::write_bundle(&folder, &folder.join("system")).unwrap();
    let certificate = fs::read_to_string(folder.join("ca.crt")).unwrap();
    assert_eq!(fs::read_to_string(&bundle).unwrap(), format!("of the system\n{certificate}"));
    chmod(&folder.join("authority.pem"), 0o666);

    let ours = ["authority.pem", "bundle.crt", "ca.crt"].map(|name| folder.join(name));
    assert_eq!(ca::remove(&folder).unwrap(), ours);
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 1, "what is not ours has to stay");
    fs::remove_file(folder.join("system")).unwrap();

    place.open();
    ca::remove(&folder).unwrap();
    assert!(!folder.exists());
}

#[test]
fn the_environment_names_files_of_the_folder() {
    let place = Place::new();
    let folder = place.folder();
    place.open();
    fs::write(place.0.path().join("system"), "").unwrap();
    ca::write_bundle(&folder, &place.0.path().join("system")).unwrap();
    for (variable, trusts) in ENVIRONMENT {
        assert!(Certificate::from_pem(&fs::read(trusts.path(&folder)).unwrap()).is_some(), "{variable}");
    }
    let error = ca::write_bundle(&folder, &place.0.path().join("nowhere")).unwrap_err();
    assert!(matches!(error, Error::NoSystemBundle), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_name_gives_a_leaf_for_it_or_is_no_name(name in prop_oneof![".{0,300}", "[a-zA-Z0-9._*-]{1,64}", "([a-z0-9]{1,10}\\.){1,30}[a-z]{2,8}\\.?"]) {
        if let Ok(server) = ServerName::try_from(name.clone()) {
            prop_assert!(AUTHORITY.1.leaf(&server).is_ok());
            if !name.ends_with('.') {
                connect(&AUTHORITY.1, AUTHORITY.1.certificate(), &name, Some(IpAddr::from([192, 0, 2, 1])))
                    .or_else(|error| if name.parse::<IpAddr>().is_ok() { Ok(()) } else { Err(error) })
                    .map_err(|error| TestCaseError::fail(format!("{name}: {error}")))?;
            }
        }
    }

    #[test]
    fn any_address_gives_a_leaf_for_it(address: IpAddr) {
        connect(&AUTHORITY.1, AUTHORITY.1.certificate(), &address.to_string(), Some(address)).unwrap();
    }

    #[test]
    fn any_bytes_are_a_certificate_or_not(bytes: Vec<u8>) {
        prop_assert!(Certificate::from_pem(&bytes).is_none());
    }
}

static AUTHORITY: LazyLock<(Place, Arc<Authority>)> = LazyLock::new(|| {
    let place = Place::new();
    let authority = place.open();
    // Nothing is dropped at the end of a process, so the folder goes now: nothing needs it any more.
    ca::remove(&place.folder()).unwrap();
    fs::remove_dir(place.0.path()).unwrap();
    (place, authority)
});

struct Place(TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn folder(&self) -> PathBuf {
        self.0.path().join("ca")
    }

    fn open(&self) -> Arc<Authority> {
        Arc::new(Authority::open_or_create(&self.folder()).unwrap())
    }

    fn refusal(&self) -> (PathBuf, Problem) {
        match Authority::open_or_create(&self.folder()) {
            Err(Error::Unsafe { path, problem }) => (path, problem),
            other => panic!("{other:?}"),
        }
    }

    fn mode(&self, name: &str) -> u32 {
        fs::metadata(self.folder().join(name)).unwrap().permissions().mode() & 0o7777
    }
}

fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

/// A client that asks for one name of a server that has the certificate of another.
fn handshake(authority: &Authority, asked: &str, got: &str) -> Result<(), rustls::Error> {
    let leaf = authority.leaf(&ServerName::try_from(got.to_owned()).unwrap()).unwrap();
    let server = server().with_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from((*leaf).clone())));
    shake(server, authority.certificate(), asked)
}

fn connect(
    authority: &Arc<Authority>,
    trusted: &Certificate,
    asked: &str,
    destination: Option<IpAddr>,
) -> Result<(), rustls::Error> {
    shake(server().with_cert_resolver(authority.resolver(destination)), trusted, asked)
}

fn server() -> rustls::ConfigBuilder<ServerConfig, rustls::server::WantsServerCert> {
    ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
}

/// A whole handshake in memory, the client's checks of the certificate included.
fn shake(server: ServerConfig, trusted: &Certificate, asked: &str) -> Result<(), rustls::Error> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from(trusted.der().to_vec())).unwrap();
    let client = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let asked = ServerName::try_from(asked.to_owned()).unwrap();
    let mut client = ClientConnection::new(Arc::new(client), asked).unwrap();
    let mut server = ServerConnection::new(Arc::new(server)).unwrap();
    for _ in 0..10 {
        let mut bytes = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut bytes).unwrap();
        }
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            server.read_tls(&mut rest).unwrap();
            server.process_new_packets()?;
        }
        let mut bytes = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut bytes).unwrap();
        }
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            client.read_tls(&mut rest).unwrap();
            client.process_new_packets()?;
        }
        if !client.is_handshaking() && !server.is_handshaking() {
            return Ok(());
        }
    }
    panic!("the handshake does not end");
}

fn validity(der: &[u8]) -> (SystemTime, SystemTime) {
    let parsed = x509_cert::Certificate::from_der(der).unwrap();
    let validity = parsed.tbs_certificate().validity();
    (validity.not_before.to_system_time(), validity.not_after.to_system_time())
}
