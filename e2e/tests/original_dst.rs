//! `SO_ORIGINAL_DST` as netfilter answers it, which runs beside as the measure; every other option as the kernel does.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::process::{Command, Stdio};

use carnet::{ErrorKind, Redirect};
use carnet_e2e::sockets::{accept, connect, listen};
use carnet_e2e::{Sandbox, netns, raw};
use carnet_policy::Service;
use libc::{EINVAL, ENOENT, SO_COOKIE, SO_ORIGINAL_DST, SOL_IP, SOL_IPV6, SOL_SOCKET};
use socket2::{Domain, Protocol, Socket, Type};

/// Where connections are asked to go, and where they come to.
const ASKED: u16 = 7000;
const SERVED: u16 = 7001;
/// A destination, and the listener to which it is redirected.
const CASES: [(&str, &str); 3] =
    [("127.0.0.1:7000", "127.0.0.1:7001"), ("[::1]:7000", "[::1]:7001"), ("127.0.0.1:7000", "[::]:7001")];

/// One answer: what `getsockopt` returned, and the bytes that a `sockaddr` of the level has.
type Answer = (i32, usize, Result<usize, i32>, Vec<u8>);

#[test]
fn every_size_is_answered_as_by_netfilter() {
    let (expected, nowhere) = by_netfilter();
    assert!(expected.iter().flatten().any(|(.., result, _)| result.is_ok()), "netfilter did redirect");
    for ((asked, served), expected) in CASES.into_iter().zip(expected) {
        let (_sandbox, accepted, _client) = redirected(asked, &served.replace(&SERVED.to_string(), "0"));
        assert_eq!(answers(&accepted), expected, "{asked} by way of {served}");
        assert_eq!(raw::get_at_nowhere(&accepted, SOL_IP, SO_ORIGINAL_DST, -1), Err(EINVAL));
        if served == CASES[0].1 {
            assert_eq!(raw::get_at_nowhere(&accepted, SOL_IP, SO_ORIGINAL_DST, 16), nowhere);
        }
    }
}

/// Where the two differ, which nobody can want to rely on: beyond a page, and without a buffer.
#[test]
fn not_as_by_netfilter() {
    let (_sandbox, accepted, _client) = redirected("127.0.0.1:7000", "127.0.0.1:0");
    let mut page = [0xa5_u8; 8192];
    assert_eq!(raw::get(&accepted, SOL_IP, SO_ORIGINAL_DST, &mut page[..4096]), Ok(4096));
    assert_eq!(raw::get(&accepted, SOL_IP, SO_ORIGINAL_DST, &mut page), Ok(16), "not 8192");
    assert_eq!(raw::get_at_null(&accepted, SOL_IP, SO_ORIGINAL_DST, 16), Ok(16), "not EFAULT");
    // The bytes behind the address are zero; netfilter does not touch them.
    let mut large = [0xa5_u8; 20];
    assert_eq!(raw::get(&accepted, SOL_IP, SO_ORIGINAL_DST, &mut large), Ok(20));
    assert_eq!(large[8..], [0; 12]);
}

/// A provider that listens on IPv4 alone gets IPv6 flows too. Netfilter has no such case.
#[test]
fn an_ipv6_destination_on_an_ipv4_socket() {
    let (_sandbox, accepted, _client) = redirected("[::1]:7000", "127.0.0.1:0");
    assert!(accepted.local_addr().unwrap().is_ipv4());
    let expected = sockaddr("[::1]:7000".parse().unwrap());
    for (level, size, result, address) in answers(&accepted) {
        let wanted = match level {
            SOL_IPV6 if size >= 28 => Ok(size),
            SOL_IP if size >= 16 => Err(ENOENT),
            _ => Err(EINVAL),
        };
        assert_eq!(result, wanted, "level {level}, {size} bytes");
        assert!(result.is_err() || address == expected, "{address:?}");
    }
    assert_eq!(Redirect::of(&accepted).original_destination().unwrap(), "[::1]:7000".parse().unwrap());
}

/// A socket of the IPv6 family that goes to an IPv4 destination: what counts is where it goes.
#[test]
fn a_mapped_destination_is_an_ipv4_one() {
    for served in ["127.0.0.1:0", "[::]:0"] {
        let (_sandbox, accepted, _client) = redirected("[::ffff:127.0.0.1]:7000", served);
        let mut address = [0; 16];
        assert_eq!(raw::get(&accepted, SOL_IP, SO_ORIGINAL_DST, &mut address), Ok(16));
        assert_eq!(address[..], sockaddr("127.0.0.1:7000".parse().unwrap()));
        assert_eq!(Redirect::of(&accepted).original_destination().unwrap(), "127.0.0.1:7000".parse().unwrap());
    }
}

#[test]
fn a_lost_context_has_no_destination() {
    for (at, level, needed) in [("127.0.0.1:0", SOL_IP, 16), ("[::1]:0", SOL_IPV6, 28), ("[::1]:0", SOL_IP, 16)] {
        let mut sandbox = Sandbox::new();
        let service = sandbox.service_at(Service::Aware, &[at]);
        let _stray = connect(service.listeners[0].local_addr().unwrap()).expect("connect");
        let accepted = accept(&service.listeners[0]);
        for (.., size, result, _) in answers(&accepted).iter().filter(|answer| answer.0 == level) {
            let expected = if *size < needed { EINVAL } else { ENOENT };
            assert_eq!(*result, Err(expected), "{at}, level {level}, {size} bytes");
        }
        let error = Redirect::of(&accepted).original_destination().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotRedirected);
    }
}

/// Sockets that no provider has accepted: netfilter answers, or nobody, as outside.
#[test]
fn sockets_that_are_not_a_providers() {
    let mut sandbox = Sandbox::new();
    sandbox.service(Service::Aware);
    let mut compared = 0;
    for ((what, inside), (_, outside)) in sandbox.in_service(0, sockets).iter().zip(&sockets()) {
        assert_eq!(answers(inside), answers(outside), "{what}");
        compared += 1;
    }
    assert_eq!(compared, 9);
    let pair = || {
        let listener = listen("127.0.0.1:0");
        (connect(listener.local_addr().unwrap()).expect("connect"), accept(&listener), listener)
    };
    let (inside, outside) = (sandbox.in_service(0, pair), pair());
    assert_eq!(answers(&inside.1), answers(&outside.1), "accepted");
    assert_eq!(answers(&inside.0), answers(&outside.0), "connected");
    assert_eq!(answers(&inside.2), answers(&outside.2), "listening");
}

/// Every option of every level, on sockets of every kind: the same length and errno as outside, and the same bytes.
#[test]
fn other_options_are_read_as_without_carnet() {
    let mut sandbox = Sandbox::new();
    sandbox.service(Service::Aware);
    let mut answered = 0;
    for ((what, inside), (_, outside)) in sandbox.in_service(0, sockets).iter().zip(&sockets()) {
        for (level, name) in options() {
            for size in [0, 1, 4, 16, 255, 4096, 8192] {
                answered += usize::from(assert_same(what, inside, outside, (level, name), size));
            }
        }
    }
    assert!(answered > 1000, "{answered} answers prove little");
}

#[test]
fn other_options_are_set_as_without_carnet() {
    let mut sandbox = Sandbox::new();
    sandbox.service(Service::Aware);
    let mut set = 0;
    for kind in 0..sockets().len() {
        let make = |count: usize| (0..count).map(|_| sockets().swap_remove(kind)).collect::<Vec<_>>();
        let cases = options().flat_map(|option| [(option, 1_u32), (option, 0)]).collect::<Vec<_>>();
        for cases in cases.chunks(100) {
            let inside = sandbox.in_service(0, || make(cases.len()));
            for ((((level, name), value), (what, inside)), (_, outside)) in
                cases.iter().zip(inside).zip(make(cases.len()))
            {
                let [result, expected] =
                    [&inside, &outside].map(|socket| raw::set(socket, *level, *name, &value.to_ne_bytes()));
                assert_eq!(result, expected, "{what}: option {name} of level {level} = {value}");
                if result.is_ok() {
                    assert_same(what, &inside, &outside, (*level, *name), 4);
                    set += 1;
                }
            }
        }
    }
    assert!(set > 100, "{set} options prove little");
}

/// Reads an option of both sockets. Returns whether there is one.
fn assert_same(what: &str, inside: &Socket, outside: &Socket, (level, name): (i32, i32), size: usize) -> bool {
    const TCP_TIMESTAMP: i32 = 24;
    let [inside, outside] = [inside, outside].map(|socket| {
        let mut buffer = vec![0; size];
        (raw::get(socket, level, name, &mut buffer), buffer)
    });
    assert_eq!(inside.0, outside.0, "{what}: option {name} of level {level}, {size} bytes");
    // Of these the bytes are a clock's, or each socket's own.
    let own = [(SOL_SOCKET, SO_COOKIE), (libc::SOL_TCP, libc::TCP_INFO), (libc::SOL_TCP, TCP_TIMESTAMP)];
    if !own.contains(&(level, name)) {
        assert!(inside.1 == outside.1, "{what}: option {name} of level {level}, {size} bytes");
    }
    inside.0.is_ok()
}

/// The kernel hands programs a page of an option at most. What is longer must pass them whole, both ways.
#[test]
fn a_long_iptables_list_stays_whole() {
    const RULES: usize = 3000;
    let mut sandbox = Sandbox::new();
    sandbox.service(Service::Aware);
    let script = "unshare --net sh -c 'iptables-legacy-restore && iptables-legacy -n -v -L && iptables-legacy-save'";
    let inside = list(sandbox.service_command(0, "sh").args(["-c", script]), RULES);
    let outside = list(Command::new("sh").args(["-c", script]), RULES);
    assert!(outside.lines().filter(|line| line.starts_with("-A ")).count() == RULES, "{outside}");
    let dated = |line: &&str| line.starts_with('#');
    assert!(
        inside.lines().filter(|line| !dated(line)).eq(outside.lines().filter(|line| !dated(line))),
        "the list differs: {} and {} bytes",
        inside.len(),
        outside.len()
    );
}

fn list(command: &mut Command, rules: usize) -> String {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("a shell, unshare and iptables-legacy");
    let mut stdin = child.stdin.take().expect("piped");
    stdin.write_all(b"*filter\n").expect("write");
    for rule in 0..rules {
        let (high, low) = (rule / 256, rule % 256);
        writeln!(stdin, "-A INPUT -s 192.0.{high}.{low} -p tcp --dport {} -j DROP", rule + 1).expect("write");
    }
    stdin.write_all(b"COMMIT\n").expect("write");
    drop(stdin);
    let output = child.wait_with_output().expect("output");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// Levels and names which the kernel may know, without those that need memory of the caller's at an address.
fn options() -> impl Iterator<Item = (i32, i32)> {
    const TCP_ZEROCOPY_RECEIVE: i32 = 35;
    let levels = [SOL_IP, SOL_SOCKET, libc::SOL_TCP, libc::SOL_UDP, SOL_IPV6, 255, libc::SOL_NETLINK, 284, 999];
    let all = levels.into_iter().flat_map(|level| (0..128).map(move |name| (level, name)));
    all.filter(|option| *option != (libc::SOL_TCP, TCP_ZEROCOPY_RECEIVE))
}

/// One new socket of each kind.
fn sockets() -> Vec<(&'static str, Socket)> {
    let of = |domain, r#type, protocol| Socket::new(domain, r#type, protocol).expect("a socket");
    vec![
        ("TCP", of(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))),
        ("TCP over IPv6", of(Domain::IPV6, Type::STREAM, Some(Protocol::TCP))),
        ("UDP", of(Domain::IPV4, Type::DGRAM, None)),
        ("UDP over IPv6", of(Domain::IPV6, Type::DGRAM, None)),
        ("raw", of(Domain::IPV4, Type::RAW, Some(Protocol::UDP))),
        ("raw IPv6", of(Domain::IPV6, Type::RAW, Some(Protocol::UDP))),
        ("unix stream", of(Domain::UNIX, Type::STREAM, None)),
        ("unix datagram", of(Domain::UNIX, Type::DGRAM, None)),
        ("netlink", of(Domain::from(libc::AF_NETLINK), Type::RAW, None)),
    ]
}

/// A connection to `asked` which one service, listening at `served`, has accepted.
fn redirected(asked: &str, served: &str) -> (Sandbox, TcpStream, TcpStream) {
    let mut sandbox = Sandbox::new();
    let service = sandbox.service_at(Service::Aware, &[served]);
    let at = service.listeners[0].local_addr().expect("an address");
    if at.ip().is_unspecified() {
        // It takes IPv4 as well.
        sandbox.policy.providers[0].listeners.push(SocketAddr::from(([127, 0, 0, 1], at.port())));
        sandbox.apply();
    }
    let asked: SocketAddr = asked.parse().expect("an address");
    let client = sandbox.in_app(|| connect(asked)).expect("connect");
    let accepted = accept(&service.listeners[0]);
    (sandbox, accepted, client)
}

/// `SO_ORIGINAL_DST` of both levels into buffers of every size.
fn answers(socket: &impl AsFd) -> Vec<Answer> {
    let ask = |level: i32, size: usize| {
        let mut buffer = vec![0; size];
        let result = raw::get(socket, level, SO_ORIGINAL_DST, &mut buffer);
        buffer.truncate(if level == SOL_IP { 16 } else { 28 });
        (level, size, result, buffer)
    };
    (0..=128).flat_map(|size| [ask(SOL_IP, size), ask(SOL_IPV6, size)]).collect()
}

/// The answers that a service gets which netfilter redirects to, case by case; and the errno for a bad address.
fn by_netfilter() -> (Vec<Vec<Answer>>, Result<usize, i32>) {
    netns::alone(|| {
        let rule = format!("tcp dport {ASKED} redirect to :{SERVED}");
        let table =
            format!("table inet carnet {{\nchain output {{\ntype nat hook output priority -100\n{rule}\n}}\n}}");
        let status = Command::new("nft").arg(table).status();
        assert!(status.expect("nft starts: apt-get install nftables").success(), "nft {rule}");
        let mut nowhere = Err(0);
        let cases = CASES.into_iter().map(|(asked, served)| {
            let listener = listen(served);
            let asked: SocketAddr = asked.parse().expect("an address");
            let _client = connect(asked).unwrap_or_else(|errno| panic!("{asked} to {served}: errno {errno}"));
            let accepted = accept(&listener);
            if served == CASES[0].1 {
                nowhere = raw::get_at_nowhere(&accepted, SOL_IP, SO_ORIGINAL_DST, 16);
            }
            answers(&accepted)
        });
        (cases.collect(), nowhere)
    })
}

/// The kernel's own form of an address.
fn sockaddr(address: SocketAddr) -> Vec<u8> {
    let port = address.port().to_be_bytes();
    match address {
        SocketAddr::V4(v4) => [&(libc::AF_INET as u16).to_ne_bytes()[..], &port, &v4.ip().octets(), &[0; 8]].concat(),
        SocketAddr::V6(v6) => {
            [&(libc::AF_INET6 as u16).to_ne_bytes()[..], &port, &[0; 4], &v6.ip().octets(), &[0; 4]].concat()
        }
    }
}
