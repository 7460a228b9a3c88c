//! `carnet ca` on a trust store of its own, with the programs that keep and read such stores. The machine's is not
//! touched.
#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, SystemTime};

use carnet_proxy::ca::{Authority, Certificate, ENVIRONMENT, VALIDITY};
use rustls::crypto::ring;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use tempfile::TempDir;

#[test]
fn what_is_installed_is_trusted_by_openssl_and_curl_until_it_is_removed() {
    let host = Host::new();
    let said = host.says(&["install"]);
    assert!(said.contains("made: ") && said.contains("installed: ") && said.contains("for any server"), "{said}");
    let certificate = host.certificate();
    assert!(host.trusted().contains(&certificate.pem()));
    assert!(host.says(&["show"]).contains("by this system, for "));
    assert_eq!(host.openssl(), (true, true));
    assert!(curl(&host, &["--cacert", host.bundle().to_str().unwrap()]).status.success());
    assert!(host.says(&["install"]).contains("by this system already"));

    let said = host.says(&["remove"]);
    for path in [host.store_file(&certificate), host.folder().join("authority.pem"), host.folder()] {
        assert!(said.contains(&format!("removed: {}\n", path.display())), "{said}");
        assert!(!path.exists());
    }
    assert_eq!(host.trusted(), host.system);
    assert_eq!(fs::read_dir(host.links()).unwrap().count(), host.links_before, "links are left");
    assert!(host.says(&["remove"]).contains("nothing to remove"));
}

#[test]
fn a_command_trusts_by_its_environment_alone() {
    let host = Host::new();
    let said = host.says(&["install", "--for-command"]);
    assert!(said.contains("The system is as it was"), "{said}");
    assert_eq!(host.trusted(), host.system);
    assert!(host.says(&["show"]).contains("not by this system"));

    let environment = host.says(&["show", "--env"]);
    for (variable, trusts) in ENVIRONMENT {
        let line = format!("export {variable}={}\n", trusts.path(&host.folder()).display());
        assert!(environment.contains(&line), "{environment}");
    }
    assert_eq!(fs::read_to_string(host.folder().join("bundle.crt")).unwrap(), host.system.clone() + &host.pem());
    // As its users do: curl knows nothing of us but its environment.
    let shell = r#"eval "$0"; exec curl "$@""#;
    assert!(
        served(&host, |arguments| Command::new("sh")
            .args(["-c", shell, &environment])
            .args(arguments)
            .output()
            .unwrap())
        .status
        .success()
    );
    assert_eq!(curl(&host, &[]).status.code(), Some(60), "curl accepts what it was not told to trust");
}

#[test]
fn what_is_half_there_is_made_whole_or_removed() {
    let host = Host::new();
    host.says(&["install"]);
    let certificate = host.certificate();
    for step in ["file", "list", "link"] {
        match step {
            "file" => fs::remove_file(host.store_file(&certificate)).unwrap(),
            "list" => fs::write(host.bundle(), &host.system).unwrap(),
            _ => fs::remove_file(host.links().join(format!("carnet-{}.pem", certificate.short()))).unwrap(),
        }
        assert!(host.says(&["show"]).contains("in part"), "{step}");
        assert!(host.says(&["install"]).contains("installed: "), "{step}");
        assert!(host.says(&["show"]).contains("by this system, for "), "{step}");
    }
    fs::remove_file(host.store_file(&certificate)).unwrap();
    fs::remove_file(host.folder().join("authority.pem")).unwrap();
    host.says(&["remove"]);
    assert!(!host.trusted().contains(&certificate.pem()) && !host.folder().exists());
}

#[test]
fn an_authority_whose_folder_is_gone_is_told_and_removed_with_all() {
    let host = Host::new();
    host.says(&["install"]);
    let certificate = host.certificate();
    fs::remove_dir_all(host.folder()).unwrap();
    let said = host.says(&["remove"]);
    assert!(said.contains("another authority") && said.contains("--all"), "{said}");
    assert!(host.trusted().contains(&certificate.pem()));
    host.says(&["remove", "--all"]);
    assert!(!host.trusted().contains(&certificate.pem()));
}

#[test]
fn an_authority_that_is_replaced_is_taken_out() {
    let host = Host::new();
    let soon = SystemTime::now() - VALIDITY + Duration::from_secs(3600);
    Authority::open_or_create_at(&host.folder(), soon).unwrap();
    let old = host.certificate();
    assert!(host.says(&["show"]).contains("which is soon"));
    fs::write(host.store_file(&old), old.pem()).unwrap();
    let said = host.says(&["install"]);
    assert!(said.contains("a new certificate authority") && said.contains("it was replaced"), "{said}");
    let new = host.certificate();
    assert_ne!(new, old);
    assert!(host.trusted().contains(&new.pem()) && !host.trusted().contains(&old.pem()));
}

#[test]
fn it_is_shown_as_openssl_shows_it() {
    let host = Host::new();
    let output = host.run(&["show"]);
    assert_eq!(output.status.code(), Some(3));
    assert!(String::from_utf8(output.stderr).unwrap().contains("`carnet ca install` makes one"));

    host.says(&["install", "--for-command"]);
    let file = host.place.path().join("shown.pem");
    fs::write(&file, host.says(&["show", "--pem"])).unwrap();
    let shown = Command::new("openssl").args(["x509", "-noout", "-fingerprint", "-sha256", "-in"]).arg(&file).output();
    let shown = String::from_utf8(shown.unwrap().stdout).unwrap();
    let fingerprint = shown.trim().split_once('=').unwrap().1;
    assert!(host.says(&["show"]).contains(&format!("SHA-256 {fingerprint}\n")));
}

/// curl with the command's certificates, for a server of the authority's.
fn curl(host: &Host, more: &[&str]) -> Output {
    served(host, |arguments| Command::new("curl").args(more).args(arguments).output().unwrap())
}

/// What becomes of a client that is given these arguments for curl, and asks one connection's worth.
fn served(host: &Host, client: impl FnOnce(&[&str]) -> Output) -> Output {
    let authority = Arc::new(Authority::open_or_create(&host.folder()).unwrap());
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(authority.resolver(None));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = thread::spawn(move || {
        let (socket, _) = listener.accept().unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let mut stream = StreamOwned::new(ServerConnection::new(Arc::new(config)).unwrap(), socket);
        // A client that does not trust ends here.
        if stream.read(&mut [0; 4096]).is_ok() {
            let _ = stream.write_all(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n");
            stream.conn.send_close_notify();
            let _ = stream.flush();
        }
    });
    let (url, at) = (format!("https://carnet.example:{port}/"), format!("carnet.example:{port}:127.0.0.1"));
    let output = client(&["-q", "-sS", "--noproxy", "*", "--max-time", "20", "--resolve", &at, &url]);
    server.join().unwrap();
    output
}

/// A trust store and a folder for an authority.
struct Host {
    place: TempDir,
    system: String,
    links_before: usize,
}

impl Host {
    /// It trusts one authority.
    fn new() -> Self {
        let place = tempfile::tempdir().unwrap();
        let system = Authority::open_or_create(&place.path().join("system")).unwrap().certificate().pem();
        let mut host = Self { place, system, links_before: 0 };
        for folder in ["usr/local/share/ca-certificates", "usr/share/ca-certificates", "etc/ssl/certs"] {
            fs::create_dir_all(host.root().join(folder)).unwrap();
        }
        fs::write(host.root().join("usr/share/ca-certificates/system.crt"), &host.system).unwrap();
        fs::write(host.root().join("etc/ca-certificates.conf"), "system.crt\n").unwrap();
        let mut update = Command::new("/usr/sbin/update-ca-certificates");
        for (option, path) in [
            ("--certsconf", "etc/ca-certificates.conf"),
            ("--certsdir", "usr/share/ca-certificates"),
            ("--localcertsdir", "usr/local/share/ca-certificates"),
            ("--etccertsdir", "etc/ssl/certs"),
            ("--hooksdir", "nowhere"),
        ] {
            update.arg(option).arg(host.root().join(path));
        }
        assert!(update.output().unwrap().status.success());
        assert_eq!(host.trusted(), host.system);
        host.links_before = fs::read_dir(host.links()).unwrap().count();
        host
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let (what, more) = arguments.split_first().unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_carnet"));
        command.args(["ca", what, "--root"]).arg(self.root()).arg("--dir").arg(self.folder()).args(more);
        command.output().unwrap()
    }

    fn says(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let errors = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success() && errors.is_empty(), "{arguments:?}: {errors}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Whether it trusts the authority by the file of all, and by the links.
    fn openssl(&self) -> (bool, bool) {
        let certificate = self.folder().join("ca.crt");
        let verify = |option: &str, path: PathBuf| {
            let mut command = Command::new("openssl");
            command.args(["verify", "-no-CAfile", "-no-CApath", "-no-CAstore", option]).arg(path).arg(&certificate);
            command.output().unwrap().status.success()
        };
        (verify("-CAfile", self.bundle()), verify("-CApath", self.links()))
    }

    fn root(&self) -> PathBuf {
        self.place.path().join("root")
    }

    fn folder(&self) -> PathBuf {
        self.place.path().join("ca")
    }

    fn links(&self) -> PathBuf {
        self.root().join("etc/ssl/certs")
    }

    fn bundle(&self) -> PathBuf {
        self.links().join("ca-certificates.crt")
    }

    fn trusted(&self) -> String {
        fs::read_to_string(self.bundle()).unwrap()
    }

    fn certificate(&self) -> Certificate {
        Certificate::read(&self.folder()).unwrap()
    }

    fn pem(&self) -> String {
        self.certificate().pem()
    }

    fn store_file(&self, certificate: &Certificate) -> PathBuf {
        self.root().join(format!("usr/local/share/ca-certificates/carnet-{}.crt", certificate.short()))
    }
}
