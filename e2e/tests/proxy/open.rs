#[cfg(feature = "yara")]
mod scan;
mod server;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use carnet_e2e::command::{Ended, carnet, finish, undisturbed};
use carnet_e2e::programs::{Scratch, program, succeed};
use carnet_e2e::sockets::until;
use nix::sys::signal::Signal;
use serde_json::Value;

use self::server::{NAME, Server};
use crate::site::Site;

const OPEN: &str = "[[rule]]\nid = \"all\"\naction = \"open\"\n";

/// A site whose rules open flows to a server that speaks TLS.
struct Opened {
    site: Site,
    server: Server,
    files: Files,
}

struct Files(Scratch);

impl Opened {
    fn with(rules: &str, act: impl FnOnce(Opened) + Send) {
        Self::with_also(rules, Files(Scratch::new()), &[], act);
    }

    /// The same with these files, and further arguments.
    fn with_also(rules: &str, files: Files, also: &[&str], act: impl FnOnce(Opened) + Send) {
        // It is read when the proxy starts, which is before there is a server in the proxy's network namespace.
        let (ca, root, har) = (files.authority(), files.root(), files.har());
        let address = std::sync::Mutex::new(None);
        let arguments = ["--ca", path(&ca), "--upstream-ca", path(&root), "--har", path(&har)];
        let arguments = [&arguments, also].concat();
        let start = || *address.lock().unwrap() = Some(Server::start(&root));
        Site::with_after(start, rules, &arguments, |site| {
            let server = address.lock().unwrap().take().unwrap();
            act(Opened { site, server, files });
        });
    }

    /// curl, as an application, with these arguments before the URL of a path.
    fn curl(&self, trusts: &Path, arguments: &[&str], at: &str) -> Ended {
        let port = self.server.address.port();
        let mut command = program("curl");
        command.args(["--silent", "--show-error", "--max-time", "20", "--noproxy", "*", "--resolve"]);
        command.arg(format!("{NAME}:{port}:127.0.0.1")).args(arguments).arg(format!("https://{NAME}:{port}{at}"));
        command.env("CURL_CA_BUNDLE", trusts);
        self.site.ground.within(&self.site.ground.app, || finish(&mut command))
    }

    /// The next event of an opened flow.
    fn event(&mut self) -> Value {
        self.site.said("open")
    }

    /// Ends the proxy, and reads what it wrote down.
    fn entries(mut self) -> Vec<Value> {
        self.site.signal(Signal::SIGTERM);
        self.site.said("ended");
        assert_eq!(self.site.proxy.end().code, 0);
        let file = self.files.har();
        assert_eq!(fs::metadata(&file).unwrap().mode() & 0o777, 0o600);
        let har: Value = serde_json::from_str(&fs::read_to_string(file).unwrap()).unwrap();
        assert_eq!(har["log"]["version"], "1.2");
        har["log"]["entries"].as_array().unwrap().clone()
    }
}

impl Files {
    fn authority(&self) -> PathBuf {
        self.0.file("ca")
    }

    /// What commands are to trust, as `carnet ca show --env` says.
    fn bundle(&self) -> PathBuf {
        let mut show = std::process::Command::new(carnet());
        succeed(undisturbed(&mut show).args(["ca", "show", "--env", "--dir"]).arg(self.authority()));
        self.authority().join("bundle.crt")
    }

    /// The authority of the server.
    fn root(&self) -> PathBuf {
        self.0.file("root.pem")
    }

    fn har(&self) -> PathBuf {
        self.0.file("flows.har")
    }
}

#[test]
fn what_curl_says_in_tls_is_read_and_written_down() {
    Opened::with(OPEN, |mut opened| {
        let bundle = opened.files.bundle();
        let answer = opened.curl(&bundle, &["--http1.1", "--data", "a=b"], "/form?x=1&y=");
        assert_eq!((answer.code, &*answer.output), (0, "HTTP/1.1 POST /form?x=1&y= a=b"), "{}", answer.errors);
        let flow = opened.site.said("flow");
        assert_eq!((&flow["action"], &flow["rule"]), (&"open".into(), &"rule \"all\" (line 1)".into()), "{flow}");
        let event = opened.event();
        assert_eq!((&event["event"], &event["inside"]), (&"opened".into(), &"http/1.1".into()), "{event}");
        assert_eq!((&event["flow"], &event["name"]), (&flow["flow"], &NAME.into()), "{event}");

        let answer = opened.curl(&bundle, &["--http2"], "/second");
        assert_eq!((answer.code, &*answer.output), (0, "HTTP/2.0 GET /second "), "{}", answer.errors);
        assert_eq!(opened.event()["inside"], "h2");

        let entries = opened.entries();
        assert_eq!(entries.len(), 2, "{entries:?}");
        let [first, second] = &entries[..] else { panic!() };
        assert_eq!(first["request"]["method"], "POST");
        let url = first["request"]["url"].as_str().unwrap();
        assert!(url.starts_with("https://site.example:") && url.ends_with("/form?x=1&y="), "{url}");
        assert_eq!(first["request"]["postData"]["text"], "a=b");
        assert_eq!(first["response"]["content"]["text"], "HTTP/1.1 POST /form?x=1&y= a=b");
        assert_eq!(first["response"]["cookies"][0]["name"], "seen");
        assert_eq!(first["_carnet"]["flow"], flow["flow"]);
        assert_eq!((&first["_carnet"]["uid"], &first["_carnet"]["comm"]), (&0.into(), &"curl".into()));
        assert_eq!(second["request"]["httpVersion"], "HTTP/2");
        assert_eq!(second["response"]["status"], 200);
    });
}

#[test]
fn who_does_not_accept_the_certificate_is_passed_on_the_next_time() {
    Opened::with(OPEN, |mut opened| {
        let root = opened.files.root();
        assert_eq!(opened.curl(&root, &[], "/").code, 60, "the authority is not trusted");
        assert_eq!(opened.event()["event"], "pinned");
        let answer = opened.curl(&root, &["--http1.1"], "/");
        assert_eq!((answer.code, &*answer.output), (0, "HTTP/1.1 GET / "), "{}", answer.errors);
        let event = opened.event();
        assert_eq!(
            (&event["event"], &event["why"], &event["passed"]),
            (&"unread".into(), &"pinned".into(), &true.into())
        );
        assert!(opened.entries().is_empty(), "what is not read cannot be written down");
    });
}

#[test]
fn who_compares_keys_is_passed_on_the_next_time() {
    Opened::with(OPEN, |mut opened| {
        let (bundle, root) = (opened.files.bundle(), opened.files.root());
        let pin = "sha256//AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
        assert_eq!(opened.curl(&bundle, &["--pinnedpubkey", pin], "/").code, 90, "another key");
        assert_eq!(opened.event()["event"], "pinned");
        assert_eq!(opened.curl(&root, &[], "/").code, 0);
        assert_eq!(opened.event()["why"], "pinned");
    });
}

#[test]
fn where_a_rule_wants_all_to_be_read_nothing_else_passes() {
    let rules = format!("{OPEN}unread = \"block\"\nblock = \"alert\"\n");
    Opened::with(&rules, |mut opened| {
        let root = opened.files.root();
        assert_eq!(opened.curl(&root, &[], "/").code, 60, "the authority is not trusted");
        assert_eq!(opened.event()["event"], "pinned");
        assert_eq!(opened.curl(&root, &[], "/").code, 60, "nor does it pass the next time");
        assert_eq!(opened.event()["event"], "pinned");
        // What is no TLS and no HTTP cannot be read either.
        assert_eq!(opened.site.ask(b"\0\0\0\0"), b"");
        let event = opened.event();
        assert_eq!((&event["why"], &event["passed"]), (&"unknown".into(), &false.into()), "{event}");
    });
}

#[test]
fn a_server_that_cannot_be_trusted_is_not() {
    let server = Files(Scratch::new());
    Opened::with(OPEN, |mut opened| {
        // Its authority is in nobody's list.
        opened.server = Server::start(&server.root());
        let answer = opened.curl(&opened.files.bundle(), &["--write-out", "%{http_code}"], "/");
        assert!(answer.output.ends_with("502"), "{answer:?}");
        assert!(answer.output.contains("UnknownIssuer"), "{answer:?}");
        let event = opened.event();
        assert_eq!(event["event"], "untrusted", "{event}");
    });
}

#[test]
fn what_was_written_down_is_there_after_a_kill() {
    Opened::with(OPEN, |opened| {
        let bundle = opened.files.bundle();
        for number in 1..=3 {
            assert_eq!(opened.curl(&bundle, &[], &format!("/{number}")).code, 0);
            let written = || serde_json::from_slice::<Value>(&fs::read(opened.files.har()).unwrap()).ok();
            until("the entry", || {
                let entries = written()?["log"]["entries"].as_array()?.len();
                (entries == number).then_some(())
            });
        }
        opened.site.signal(Signal::SIGKILL);
        let files = opened.files;
        assert_eq!(opened.site.proxy.end().code, 137);
        let har: Value = serde_json::from_slice(&fs::read(files.har()).unwrap()).unwrap();
        assert_eq!(har["log"]["entries"].as_array().unwrap().len(), 3);
    });
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}
