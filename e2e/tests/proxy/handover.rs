//! One process takes over from another.

use std::fs;
use std::io::{ErrorKind, Read};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use carnet_control::ProviderState;
use carnet_e2e::load::{Clients, Serving};
use carnet_e2e::programs::Scratch;
use carnet_e2e::raw::{NOBODY, as_nobody};
use carnet_e2e::sockets::{accept, assert_joined, listen, until};
use carnet_e2e::{enter, netns};
use nix::sys::signal::Signal;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketType, connect, recv, socket};

use crate::site::{LISTEN, Site, get, said};

const CLIENT: &str = env!("CARGO_BIN_EXE_carnet-e2e-pinned");

/// Another address of the policy's. Each test has a network namespace of its own.
const OTHER: &str = "127.0.0.1:15002";

/// A site whose proxy can be taken over from. What its proxies are started with, and the socket.
fn with(arguments: &[&str], act: impl FnOnce(Site, &[&str], &Path) + Send) {
    let scratch = Scratch::new();
    let path = scratch.file("proxy.sock");
    let own = [arguments, &["--hand-over", path.to_str().unwrap()]].concat();
    Site::with("", &own, |site| act(site, &[&["--listen", LISTEN], &own[..]].concat(), &path));
}

/// Every connection is answered by the server, whichever process it comes through; and it does not matter that the cgroup
/// is gone in which the listener was made.
#[test]
fn five_in_a_row_lose_no_connection() {
    with(&["--drain", "60"], |mut site, arguments, _| {
        let server = listen("127.0.0.1:0");
        let serving = Serving::at(&server, |_| Ok(()));
        let commands = (0..2).map(|_| {
            let mut command = enter(&site.ground.app, CLIENT);
            command.arg("connects").arg(server.local_addr().unwrap().to_string());
            command
        });
        let mut clients = Clients::start(commands);
        clients.more(100);
        for turn in 1..=5 {
            let before = site.proxy.pid();
            let (mut old, ready) = site.succeed(turn, arguments);
            assert_eq!(ready["taken_over_from"].as_u64(), Some(before.into()), "{ready}");
            assert_eq!(ready["listen"][0], LISTEN);
            assert_eq!(said(&mut old, "handed-over")["to"].as_u64(), Some(site.proxy.pid().into()));
            clients.more(100);
            let ended = said(&mut old, "ended");
            assert_eq!(ended["cut_off"], 0, "{ended}");
            let ended = old.end();
            assert_eq!((ended.code, ended.errors.as_str()), (0, ""));
            fs::remove_dir(site.ground.service(turn - 1).path()).unwrap();
            clients.more(100);
        }
        println!("{} connections", clients.end());
        serving.assert_right();
    });
}

/// The listener is known by the cgroup in which it was made, so that one has to stay: name one above all of them.
#[test]
fn a_policy_may_name_each_cgroup_for_as_long_as_the_first_one_stays() {
    with(&[], |mut site, arguments, _| {
        let cgroups = [0, 1].map(|index| site.ground.name_of(&site.ground.service(index)));
        let owners = cgroups.map(|cgroup| format!("{{ cgroup = \"{cgroup}\" }}")).join(", ");
        site.daemon.apply(&owned_by(&format!("[{owners}]")));
        let (mut old, _) = site.succeed(1, arguments);
        said(&mut old, "ended");
        assert_eq!(old.end().code, 0);
        assert!(site.get("after.example").starts_with("HTTP/1.1 200 "));
        assert_eq!(site.said("flow")["name"], "after.example");

        fs::remove_dir(site.ground.service(0).path()).unwrap();
        site.daemon.wait_for_state("inspect", ProviderState::Stranger);
        let refused = site.ground.within(&site.ground.app, || TcpStream::connect(site.origin.address));
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::ConnectionRefused);
    });
}

#[test]
fn a_policy_may_name_the_user() {
    with(&[], |mut site, arguments, _| {
        site.daemon.apply(&owned_by("{ uid = 0 }"));
        let to = site.origin.address;
        let get = |site: &Site| site.ground.within(&site.ground.app, || as_nobody(|| get(to)));
        assert!(get(&site).starts_with(b"HTTP/1.1 200 "));
        let (mut old, _) = site.succeed(1, arguments);
        said(&mut old, "ended");
        assert_eq!(old.end().code, 0);
        fs::remove_dir(site.ground.service(0).path()).unwrap();
        assert!(get(&site).starts_with(b"HTTP/1.1 200 "));
        assert_eq!(site.said("flow")["uid"].as_u64(), Some(NOBODY.into()));
    });
}

/// A policy that redirects everything to the proxy.
fn owned_by(owner: &str) -> String {
    format!(
        "[[provider]]\nname = \"inspect\"\nrank = 10\nlisten = \"{LISTEN}\"\nowner = {owner}\n\
         [[provider.filter]]\nname = \"all\"\nmatch = {{ remote = \"127.0.0.0/8\" }}\naction = \"redirect\"\n"
    )
}

#[test]
fn open_flows_stay_with_the_process_that_has_them() {
    with(&["--drain", "60"], |mut site, arguments, _| {
        let server = listen("127.0.0.1:0");
        let mut open = (site.connect_to(server.local_addr().unwrap()), accept(&server));
        assert_joined(&mut open.0, &mut open.1);
        let (mut old, _) = site.succeed(1, arguments);
        assert!(site.get("a.example").starts_with("HTTP/1.1 200 "));
        assert_joined(&mut open.0, &mut open.1);
        assert!(!old.has_ended());
        drop(open);
        assert_eq!(said(&mut old, "ended")["cut_off"], 0);
        assert_eq!(old.end().code, 0);
        assert_eq!(site.said("flow")["name"], "a.example");
    });
}

#[test]
fn one_that_cannot_begin_changes_nothing() {
    with(&[], |mut site, arguments, path| {
        let taken = listen(OTHER);
        let next = site.another(1, &[arguments, &["--listen", OTHER]].concat()).end();
        assert_eq!(next.code, 3, "{}", next.errors);
        assert!(next.errors.contains(OTHER), "{}", next.errors);
        let warning = site.said("warning");
        assert!(warning["message"].as_str().unwrap().contains("ended before it served"), "{warning}");
        assert!(site.get("a.example").starts_with("HTTP/1.1 200 "));
        drop(taken);
        let names = fs::read_dir(path.parent().unwrap()).unwrap().map(|entry| entry.unwrap().file_name());
        assert_eq!(names.collect::<Vec<_>>(), ["proxy.sock"], "nothing is left behind");

        let (mut old, _) = site.succeed(1, &[arguments, &["--listen", OTHER]].concat());
        said(&mut old, "ended");
    });
}

#[test]
fn the_next_one_listens_where_it_is_told_to() {
    with(&["--listen", OTHER], |mut site, _, path| {
        let third = "[::1]:15003";
        let arguments = ["--hand-over", path.to_str().unwrap(), "--listen", LISTEN, "--listen", third];
        let (mut old, ready) = site.succeed(1, &arguments);
        let mut at: Vec<_> = ready["listen"].as_array().unwrap().iter().map(|at| at.as_str().unwrap()).collect();
        at.sort_unstable();
        assert_eq!(at, [LISTEN, third]);
        said(&mut old, "ended");
        assert!(site.get("a.example").starts_with("HTTP/1.1 200 "));
        // Nothing was redirected here, so it is reset; but it is accepted.
        let mut direct = TcpStream::connect(third).unwrap();
        assert!(direct.read(&mut [0]).is_err());
        assert!(TcpStream::connect(OTHER).is_err(), "nobody wants it any more");
    });
}

#[test]
fn a_socket_of_a_process_that_was_killed_is_in_nobodys_way() {
    with(&[], |mut site, arguments, path| {
        assert_eq!(fs::metadata(path).unwrap().mode() & 0o777, 0o600);
        site.signal(Signal::SIGKILL);
        until("its end", || site.proxy.has_ended().then_some(()));
        assert!(path.exists());
        let (_, ready) = site.succeed(1, arguments);
        assert!(ready["taken_over_from"].is_null(), "{ready}");
        assert!(site.get("a.example").starts_with("HTTP/1.1 200 "));
        // One that ends by a signal takes it with it.
        site.signal(Signal::SIGTERM);
        site.said("ended");
        assert!(!path.exists());
    });
}

#[test]
fn other_users_get_nothing() {
    with(&[], |site, _, path| {
        // Its mode and its folder's keep others out; where somebody has changed that, it is asked who they are.
        let folder = path.parent().unwrap();
        fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).unwrap();
        let address = SocketAddrUnix::new(path).unwrap();
        let attempt = || {
            as_nobody(|| {
                let socket = socket(AddressFamily::UNIX, SocketType::SEQPACKET, None).unwrap();
                connect(&socket, &address)?;
                let _ = rustix::net::send(&socket, b"carnetho\x01\x01", rustix::net::SendFlags::NOSIGNAL);
                recv(&socket, &mut [0; 32][..], rustix::net::RecvFlags::empty()).map(|(length, _)| length)
            })
        };
        assert_eq!(attempt(), Err(rustix::io::Errno::ACCESS));
        fs::set_permissions(path, fs::Permissions::from_mode(0o666)).unwrap();
        assert!(matches!(attempt(), Ok(0) | Err(rustix::io::Errno::CONNRESET)));
        assert!(site.get("a.example").starts_with("HTTP/1.1 200 "));
    });
}

#[test]
fn what_is_no_socket_is_left_alone() {
    let scratch = Scratch::new();
    let file = scratch.file("precious");
    fs::write(&file, "words").unwrap();
    netns::alone(|| {
        let mut command = std::process::Command::new(carnet_e2e::command::carnet());
        command.args(["proxy", "--listen", LISTEN, "--hand-over"]).arg(&file);
        let ended = carnet_e2e::command::finish(&mut command);
        assert_eq!(ended.code, 3);
        assert!(ended.errors.contains("something else than a socket"), "{}", ended.errors);
    });
    assert_eq!(fs::read_to_string(&file).unwrap(), "words");
}

/// An application that does not end its connection is not waited for by who has no time.
#[test]
fn a_second_signal_ends_it_at_once() {
    Site::with("", &["--drain", "3600"], |mut site| {
        let server = listen("127.0.0.1:0");
        let to: SocketAddr = server.local_addr().unwrap();
        let mut open = (site.connect_to(to), accept(&server));
        assert_joined(&mut open.0, &mut open.1);
        site.signal(Signal::SIGTERM);
        until("the listener to go", || TcpStream::connect(LISTEN).is_err().then_some(()));
        site.signal(Signal::SIGTERM);
        // Those that looked for the listener were not redirected, which it warns of, too.
        while !site.said("warning")["message"].as_str().unwrap().contains("second signal") {}
        assert!(open.0.read(&mut [0]).is_err(), "it is reset");
        until("its end", || site.proxy.has_ended().then_some(()));
    });
}
