//! `CARNET_FLOW`: each field against the truth, and at every hop the first application's.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

use carnet::{Executable, Family, Flow, Origin, Redirect};
use carnet_e2e::sockets::{accept, connect, connect_on, listen, stream};
use carnet_e2e::{Sandbox, Service, netns, raw};
use carnet_policy::Service as Kind;
use libc::SOL_SOCKET;
use socket2::SockRef;

/// A copy of the client under a name of its own, running as an application until this is dropped.
struct Client {
    child: Child,
    folder: PathBuf,
    executable: PathBuf,
    source: SocketAddr,
}

/// More than the 15 bytes that a process's name has.
const NAME: &str = "first-application";

#[test]
fn every_field_is_true() {
    for at in ["127.0.0.1:0", "[::1]:0"] {
        let mut sandbox = Sandbox::new();
        let server = listen(at);
        let service = sandbox.service(Kind::Aware);
        let before = now();
        let client = Client::start(&sandbox, (4320, 5430), server.local_addr().unwrap());
        let accepted = accepted_at(&service, &server);
        let after = now();
        let flow = flow_of(&accepted);

        client.assert_is_origin(flow.origin(), &sandbox, &server);
        assert_eq!(flow.destination(), server.local_addr().unwrap());
        assert_eq!(flow.origin().netns_cookie, netns_cookie(&accepted));
        assert!((before..=after).contains(&flow.origin().time), "{before:?} {:?} {after:?}", flow.origin().time);
        assert!(flow.origin().start_time < flow.origin().time);
        assert_eq!(flow.origin().bound_interface, None);
        assert!(!flow.origin().inferred && !flow.origin().ambiguous);
        assert_eq!(flow.depth(), 1);
        assert_eq!(flow.chain()[0].handle, 1);
        assert!(flow.chain()[0].filter.is_some());
        assert!(flow.chain()[0].time >= flow.origin().time && flow.chain()[0].time <= after);
    }
}

/// A process lives on when its first thread has ended. `/proc/<pid>/exe` leads nowhere then, the record does.
#[test]
fn the_executable_is_known_when_the_first_thread_has_ended() {
    let mut sandbox = Sandbox::new();
    let server = listen("127.0.0.1:0");
    let service = sandbox.service(Kind::Aware);
    let client = Client::start_with(&sandbox, (4320, 5430), server.local_addr().unwrap(), &["alone"]);
    let flow = flow_of(&accepted_at(&service, &server));
    let origin = flow.origin();
    assert_eq!((origin.pid, origin.exe), (client.child.id(), client.identity()));
    assert_eq!(ticks(origin.start_time), start_ticks(client.child.id()));
    assert_eq!(origin.comm, NAME[..15]);
    assert_eq!(origin.executable_path(), None);
}

/// The second service is unaware: what comes after it is inferred, and says so.
#[test]
fn at_every_hop_it_is_the_first_application() {
    let mut sandbox = Sandbox::new();
    let server = listen("127.0.0.1:0");
    let [first, second, third] = [Kind::Aware, Kind::Unaware, Kind::Aware].map(|kind| sandbox.service(kind));
    let client = Client::start(&sandbox, (4320, 5430), server.local_addr().unwrap());

    let at_first = accepted_at(&first, &server);
    let onward = sandbox.in_service(first.index, || Redirect::of(&at_first).dial()).expect("dial");
    let at_second = accepted_at(&second, &server);
    // It knows nothing but the destination.
    let destination = Redirect::of(&at_second).original_destination().expect("SO_ORIGINAL_DST");
    let unaware = sandbox.in_service(second.index, || connect(destination)).expect("connect");
    let at_third = accepted_at(&third, &server);
    let last = sandbox.in_service(third.index, || Redirect::of(&at_third).dial()).expect("dial");
    assert_eq!(accept(&server).peer_addr().unwrap(), last.local_addr().unwrap());

    let flows = [&at_first, &at_second, &at_third].map(flow_of);
    for (hop, flow) in flows.iter().enumerate() {
        client.assert_is_origin(flow.origin(), &sandbox, &server);
        assert_eq!((flow.id(), flow.destination()), (flows[0].id(), flows[0].destination()));
        let handles: Vec<u32> = flow.chain().iter().map(|hop| hop.handle).collect();
        assert_eq!(handles, [1, 2, 3][..=hop]);
        assert!(flow.chain().is_sorted_by_key(|hop| hop.time));
        assert_eq!(flow.chain()[..hop], flows[2].chain()[..hop], "what was, stays");
        let mut expected = flows[0].origin().clone();
        expected.inferred = hop == 2;
        assert_eq!(*flow.origin(), expected, "the same in each field but one");
    }
    drop((onward, unaware));
}

/// Two users' flows to one destination, in the hands of a service that does not say which of them it carries on.
#[test]
fn a_flow_that_could_be_two_applications_is_nobodys() {
    let mut sandbox = Sandbox::new();
    let server = listen("127.0.0.1:0");
    let [unaware, next] = [Kind::Unaware, Kind::Aware].map(|kind| sandbox.service(kind));
    let destination = server.local_addr().unwrap();
    let client = Client::start(&sandbox, (4320, 5430), destination);
    let held = accepted_at(&unaware, &server);
    let go_on = || {
        let _onward = sandbox.in_service(unaware.index, || connect(destination)).expect("connect");
        flow_of(&accepted_at(&next, &server))
    };

    let flow = go_on();
    assert!(flow.origin().inferred && !flow.origin().ambiguous);
    assert_eq!(flow.origin().pid, client.child.id());

    let (second_client, second_held) = sandbox.arrive(&unaware, destination);
    let flow = go_on();
    assert!(flow.origin().ambiguous && !flow.origin().inferred);
    assert_eq!((flow.depth(), flow.chain()[0].handle), (1, 2));
    assert_eq!(flow.origin().pid, std::process::id(), "the service's own process");
    assert_eq!(flow.origin().cgroup_id, sandbox.service_cgroup(unaware.index).id());
    assert_ne!(flow.id(), flow_of(&held).id());

    // When all of them are over it begins anew.
    drop((client, held, second_client, second_held));
    let (_client, _held) = sandbox.arrive(&unaware, destination);
    let flow = go_on();
    assert!(flow.origin().inferred && !flow.origin().ambiguous);
    assert_eq!(flow.origin().cgroup_id, sandbox.app_cgroup().id());
}

/// Two connections of one application are no reason for doubt.
#[test]
fn one_application_is_not_ambiguous() {
    let mut sandbox = Sandbox::new();
    let server = listen("127.0.0.1:0");
    let [unaware, next] = [Kind::Unaware, Kind::Aware].map(|kind| sandbox.service(kind));
    let destination = server.local_addr().unwrap();
    let _held = [(); 2].map(|()| sandbox.arrive(&unaware, destination));
    let _onward = sandbox.in_service(unaware.index, || connect(destination)).expect("connect");
    let flow = flow_of(&accepted_at(&next, &server));
    assert!(flow.origin().inferred && !flow.origin().ambiguous);
}

/// A service may send a flow elsewhere. The next one is told both: where this hop goes, and what the application asked.
#[test]
fn a_service_may_change_the_destination() {
    let mut sandbox = Sandbox::new();
    let [asked, instead] = ["127.0.0.1:0", "[::1]:0"].map(listen);
    let [first, second] = [(); 2].map(|()| sandbox.service(Kind::Aware));
    let (asked_at, instead_at) = (asked.local_addr().unwrap(), instead.local_addr().unwrap());
    let (client, at_first) = sandbox.arrive(&first, asked_at);
    let _onward = sandbox.in_service(first.index, || {
        let socket = stream(instead_at);
        Redirect::of(&at_first).records().expect("records").apply_to(&socket).expect("SET");
        connect_on(socket, &instead_at.into()).expect("connect")
    });
    let flow = flow_of(&accepted_at(&second, &instead));
    assert_eq!(flow.destination(), instead_at);
    assert_eq!(flow.origin().destination, asked_at);
    assert_eq!((flow.origin().family, flow.origin().source), (Family::V4, Some(client.local_addr().unwrap())));
}

/// An IPv6 socket can go to an IPv4 destination: two things, told apart.
#[test]
fn the_family_is_the_sockets() {
    let mut sandbox = Sandbox::new();
    let server = listen("127.0.0.1:0");
    let service = sandbox.service(Kind::Aware);
    let port = server.local_addr().unwrap().port();
    let mapped: SocketAddr = format!("[::ffff:127.0.0.1]:{port}").parse().unwrap();
    let client = sandbox.in_app(|| connect(mapped)).expect("connect");
    let flow = flow_of(&accept(&service.listeners[0]));
    assert_eq!(flow.origin().family, Family::V6);
    assert_eq!(flow.destination(), server.local_addr().unwrap());
    let source = flow.origin().source.expect("an address");
    assert_eq!((source.ip().to_string(), source.port()), ("127.0.0.1".into(), client.local_addr().unwrap().port()));
}

/// The record keeps the binding, which has to go: only the loopback device leads to the listener, and a socket that is
/// bound could not be cut off.
#[test]
fn the_interface_a_socket_was_bound_to() {
    netns::alone(|| {
        netns::ip("link add carnet0 type veth peer name carnet1");
        netns::ip("link set carnet0 up");
        let mut sandbox = Sandbox::new();
        let service = sandbox.service(Kind::Aware);
        let destination: SocketAddr = "192.0.2.7:80".parse().unwrap();
        for device in ["lo", "carnet0"] {
            let client = sandbox.in_app(|| {
                let socket = stream(destination);
                socket.bind_device(Some(device.as_bytes())).expect("SO_BINDTODEVICE");
                connect_on(socket, &destination.into()).expect("connect")
            });
            let index = nix::net::if_::if_nametoindex(device).expect("an interface");
            assert_eq!(flow_of(&accept(&service.listeners[0])).origin().bound_interface, Some(index), "{device}");
            assert_eq!(SockRef::from(&client).device().unwrap(), None, "{device}");
        }
    });
}

/// An application that dials the service itself, as one does with an explicit proxy: no filter led it there.
#[test]
fn dialled_straight() {
    let mut sandbox = Sandbox::new();
    let service = sandbox.service(Kind::Aware);
    sandbox.policy.providers[0].direct = true;
    sandbox.apply();
    let at = service.listeners[0].local_addr().unwrap();
    let (client, accepted) = sandbox.arrive(&service, at);
    let flow = flow_of(&accepted);
    assert_eq!((flow.destination(), flow.origin().destination), (at, at));
    assert_eq!(flow.origin().source, Some(client.local_addr().unwrap()));
    assert_eq!((flow.depth(), flow.chain()[0].filter), (1, None));
    assert_eq!(Redirect::of(&accepted).context().expect("context"), None);
}

impl Client {
    fn start(sandbox: &Sandbox, ids: (u32, u32), destination: SocketAddr) -> Self {
        Self::start_with(sandbox, ids, destination, &[])
    }

    fn start_with(sandbox: &Sandbox, (uid, gid): (u32, u32), destination: SocketAddr, how: &[&str]) -> Self {
        let folder = std::env::temp_dir().join(format!("carnet-e2e-flow.{}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder");
        let executable = folder.join(NAME);
        fs::copy(env!("CARGO_BIN_EXE_carnet-e2e-client"), &executable).expect("a copy");
        fs::set_permissions(&executable, fs::Permissions::from_mode(0o755)).expect("permissions");
        let mut child = sandbox
            .app_command(executable.to_str().expect("UTF-8"))
            .args([uid.to_string(), gid.to_string(), destination.to_string()])
            .args(how)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the client starts");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).expect("a line");
        let source = line.trim_end().parse().unwrap_or_else(|_| panic!("an address, not {line:?}"));
        Self { child, folder, executable, source }
    }

    /// Everything that can be known of the client from elsewhere.
    fn assert_is_origin(&self, origin: &Origin, sandbox: &Sandbox, server: &TcpListener) {
        let destination = server.local_addr().expect("an address");
        assert_eq!(origin.pid, self.child.id());
        assert_eq!(ticks(origin.start_time), start_ticks(self.child.id()));
        assert_eq!((origin.uid, origin.gid), (4320, 5430), "the real ids");
        assert_eq!(origin.comm, NAME[..15], "the first thread's, though the second one connected");
        assert_eq!(origin.exe, self.identity());
        assert_eq!(origin.executable_path(), Some(self.executable.canonicalize().expect("the file")));
        assert_eq!(origin.cgroup_id, sandbox.app_cgroup().id());
        assert_eq!(origin.family, if destination.is_ipv4() { Family::V4 } else { Family::V6 });
        assert_eq!((origin.destination, origin.source), (destination, Some(self.source)));
    }

    fn identity(&self) -> Executable {
        let file = fs::metadata(&self.executable).expect("stat");
        let device = libc::major(file.dev()) << 20 | libc::minor(file.dev());
        Executable { device, inode: file.ino() }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        self.child.kill().and_then(|()| self.child.wait()).expect("the client ends");
        fs::remove_dir_all(&self.folder).expect("the folder can be removed");
    }
}

fn accepted_at(service: &Service, server: &TcpListener) -> TcpStream {
    accept(&service.listeners[usize::from(server.local_addr().expect("an address").is_ipv6())])
}

fn flow_of(accepted: &TcpStream) -> Flow {
    Redirect::of(accepted).flow().expect("flow")
}

fn netns_cookie(socket: &TcpStream) -> u64 {
    const SO_NETNS_COOKIE: i32 = 71;
    let mut cookie = [0; 8];
    assert_eq!(raw::get(socket, SOL_SOCKET, SO_NETNS_COOKIE, &mut cookie), Ok(8));
    u64::from_ne_bytes(cookie)
}

/// `CLOCK_BOOTTIME`, the clock of records.
fn now() -> Duration {
    nix::time::ClockId::CLOCK_BOOTTIME.now().expect("a clock").into()
}

/// `/proc`'s unit is 10 ms.
fn ticks(time: Duration) -> u128 {
    time.as_millis() / 10
}

/// Field 22; the name before it, in parentheses, has no spaces here.
fn start_ticks(pid: u32) -> u128 {
    let stat = fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat")).expect("a process");
    stat.split(' ').nth(21).expect("field 22").parse().expect("a number")
}
