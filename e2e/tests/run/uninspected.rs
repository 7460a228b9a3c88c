//! What no service gets: UDP, and sockets that no hook sees. `--block-quic` and `--strict`.

use std::net::UdpSocket;
use std::process::Command;

use carnet_e2e::command::{Ended, carnet, carnet_run, finish, undisturbed};
use carnet_e2e::sockets::PATIENCE;
use serde_json::Value;

use crate::{Scratch, echo_server, flows, objects, run, run_logged};

#[test]
fn queries_are_one_flow_that_is_not_inspected() {
    let server = UdpSocket::bind("127.0.0.1:0").unwrap();
    let to = server.local_addr().unwrap();
    // A new socket for each, as resolvers do.
    let script = format!("echo $$; for query in {{1..30}}; do echo $query > /dev/udp/{}/{}; done", to.ip(), to.port());
    let (ended, objects) = run_logged(&["--", "bash", "-c", &script]);
    assert_eq!((ended.code, &ended.errors[..]), (0, ""));

    let [flow, summary] = &objects[..] else { panic!("a flow and a summary: {objects:#?}") };
    assert_eq!(
        (&flow["type"], &flow["protocol"], &flow["decision"]),
        (&"flow".into(), &"udp".into(), &"not-inspected".into())
    );
    assert_eq!((&flow["program"], &flow["destination"]), (&"bash".into(), &to.to_string().into()));
    assert_eq!(flow["pid"].to_string(), ended.output.trim());
    assert_eq!((&flow["uid"], &flow["chain"]), (&0.into(), &Value::Array(vec![])));
    for nothing in ["sent", "received", "duration_ms", "ended", "at", "error", "reason", "name", "left_alone"] {
        assert_eq!(flow[nothing], Value::Null, "{nothing} of {flow}");
    }
    assert_eq!((&summary["flows"], &summary["not_inspected"], &summary["failed"]), (&1.into(), &1.into(), &0.into()));
    // All of them have come.
    server.set_nonblocking(true).unwrap();
    for query in 1..=30 {
        let mut buffer = [0; 8];
        let size = server.recv(&mut buffer).unwrap();
        assert_eq!(buffer[..size], *format!("{query}\n").as_bytes());
    }

    let text = run(&["--", "bash", "-c", &script]);
    let [line, summary] = text.errors.lines().collect::<Vec<_>>()[..] else { panic!("{text:?}") };
    let fields: Vec<&str> = line.split("  ").skip(2).collect();
    assert_eq!(fields, [&to.to_string()[..], "-", "-", "udp", "not inspected"]);
    assert_eq!(summary, "carnet: 1 flow, 0 B up, 0 B down, 1 not inspected");
}

#[test]
fn quic_is_refused_and_the_program_uses_tcp() {
    let ip = "127.44.3.1";
    let server = echo_server();
    let tcp = server.addresses[0];
    let quic = UdpSocket::bind((ip, 443)).unwrap();
    quic.set_read_timeout(Some(PATIENCE)).unwrap();
    // As a browser does: QUIC first, and TCP where that fails.
    let script = format!(
        "if echo hello > /dev/udp/{ip}/443; then echo by QUIC
        else exec 3<> /dev/tcp/{}/{}; echo hello >&3; read answer <&3; echo $answer by TCP; fi 2> /dev/null",
        tcp.ip(),
        tcp.port()
    );
    let (ended, objects) = run_logged(&["--block-quic", "--", "bash", "-c", &script]);
    assert_eq!((ended.code, &ended.output[..]), (0, "hello by TCP\n"), "{ended:?}");
    let [refused, inspected] = flows(&objects)[..] else { panic!("{objects:#?}") };
    for (field, udp, in_tcp) in [
        ("protocol", "udp".into(), Value::from("tcp")),
        ("destination", format!("{ip}:443").into(), tcp.to_string().into()),
        ("decision", "refused".into(), "redirected".into()),
        ("ended", "refused".into(), "closed".into()),
        ("reason", "quic".into(), Value::Null),
        ("error", "EPERM".into(), Value::Null),
    ] {
        assert_eq!((&refused[field], &inspected[field]), (&udp, &in_tcp), "{field}");
    }
    let summary = objects.last().unwrap();
    assert_eq!((&summary["refused"], &summary["not_inspected"]), (&1.into(), &0.into()));

    let ended = run(&["--", "bash", "-c", &script]);
    assert_eq!((ended.code, &ended.output[..]), (0, "by QUIC\n"), "{ended:?}");
    assert_eq!(quic.recv(&mut [0; 16]).unwrap(), 6);
}

#[test]
fn sockets_that_cannot_be_inspected_are_told() {
    let script = attempts("for again in range(3):");
    let (ended, objects) = run_logged(&["--", "python3", "-c", &script]);
    assert_eq!((ended.code, &ended.errors[..]), (0, ""));
    assert_eq!(ended.output, "raw 0\nudp-lite 0\npacket 0\nold packet 0\n".repeat(3));
    let [raw, lite, _summary] = &objects[..] else { panic!("{objects:#?}") };
    for (object, family, kind, protocol) in [(raw, "ipv4", "raw", libc::IPPROTO_ICMP), (lite, "ipv6", "udp-lite", 136)]
    {
        assert_eq!((&object["type"], &object["decision"]), (&"socket".into(), &"not-inspected".into()));
        assert_eq!((&object["family"], &object["kind"]), (&family.into(), &kind.into()));
        assert_eq!((&object["protocol"], &object["error"]), (&protocol.into(), &Value::Null));
        assert_eq!((&object["program"], &object["uid"]), (&"python3".into(), &0.into()));
    }
    let ended = run(&["--", "python3", "-c", &script]);
    let told = "] made a socket that cannot be inspected (IPv4 raw socket, protocol 1, ICMP); `strict` refuses these\n";
    assert!(ended.errors.starts_with("carnet: python3[") && ended.errors.contains(told), "{ended:?}");
}

#[test]
fn strict_refuses_them_to_root() {
    let script = attempts("if True:");
    let (ended, objects) = run_logged(&["--strict", "--", "python3", "-c", &script]);
    assert_eq!((ended.code, &ended.errors[..]), (0, ""));
    // What needs CAP_NET_RAW fails as it does for a user, before Carnet is asked.
    let (denied, user) = (libc::EACCES, libc::EPERM);
    assert_eq!(ended.output, format!("raw {user}\nudp-lite {denied}\npacket {user}\nold packet {user}\n"));
    let [lite, _summary] = &objects[..] else { panic!("{objects:#?}") };
    assert_eq!((&lite["kind"], &lite["decision"]), (&"udp-lite".into(), &"refused".into()), "{lite}");
    assert_eq!((&lite["program"], &lite["error"]), (&"python3".into(), &"EACCES".into()), "{lite}");
}

#[test]
fn strict_takes_one_capability_for_good() {
    let script = "grep ^Cap /proc/self/status; grep ^Cap /proc/self/status | setpriv --ambient-caps=-all cat";
    let capabilities = |strict: &[&str], environment: &[(&str, &str)]| {
        let mut command = carnet_run(&[&["--log", "/dev/null"], strict, &["--", "sh", "-c", script]].concat());
        let ended = finish(command.envs(environment.iter().copied()));
        assert_eq!((ended.code, &ended.errors[..]), (0, ""));
        let sets = ended.output.lines().map(|line| u64::from_str_radix(line.split('\t').nth(1).unwrap(), 16).unwrap());
        sets.collect::<Vec<_>>()
    };
    const RAW: u64 = 1 << 13;
    for environment in [&[][..], &[("SUDO_UID", "12345"), ("SUDO_GID", "23456")]] {
        let (with, without) = (capabilities(&[], environment), capabilities(&["--strict"], environment));
        assert_eq!(with.len(), 10);
        assert!(with.iter().any(|set| set & RAW != 0), "{with:x?}");
        assert_eq!(without, with.iter().map(|set| set & !RAW).collect::<Vec<_>>(), "and no other");
    }
}

/// Undoing the binding, which a redirect needs, takes the capability.
#[test]
fn strict_has_root_s_bound_sockets_refused_like_a_user_s() {
    let server = echo_server();
    let to = server.addresses[0];
    let program = format!(
        "
import socket
client = socket.socket()
client.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b'lo')
print(client.connect_ex(('{}', {})))",
        to.ip(),
        to.port()
    );
    for (strict, errno) in [(&[][..], 0), (&["--strict"], libc::ENETUNREACH)] {
        let ended = run(&[strict, &["--log", "/dev/null", "--", "python3", "-c", &program]].concat());
        assert_eq!((ended.code, &ended.output[..]), (0, &format!("{errno}\n")[..]), "{strict:?}: {ended:?}");
    }
}

/// Its packet sockets are those of a network that leads nowhere.
#[test]
fn a_user_namespace_gives_packet_sockets_only_in_its_own_networks() {
    let script = attempts("if True:");
    // A raw socket of such a network is refused by Carnet then.
    for (namespaces, raw, packet) in
        [(&["--user"][..], libc::EPERM, libc::EPERM), (&["--user", "--net"], libc::EACCES, 0)]
    {
        let unshare = [&["--strict", "--log", "/dev/null", "--", "unshare", "--map-root-user"], namespaces].concat();
        let ended = run(&[&unshare[..], &["python3", "-c", &script]].concat());
        let lite = libc::EACCES;
        let expected = format!("raw {raw}\nudp-lite {lite}\npacket {packet}\nold packet {packet}\n");
        assert_eq!((ended.code, &ended.output[..]), (0, &expected[..]), "{namespaces:?}: {ended:?}");
    }
}

/// The kernel does not start a program with less than its file says that it needs.
#[test]
fn a_file_with_the_capability_does_not_start_where_strict() {
    let program = Scratch::new();
    std::fs::copy("/bin/true", program.path()).unwrap();
    // cap_net_raw=ep, as setcap(8) writes it.
    let give = "import os, struct, sys
os.setxattr(sys.argv[1], 'security.capability', struct.pack('<IIIII', 0x02000001, 1 << 13, 0, 0, 0))";
    assert!(Command::new("python3").args(["-c", give, program.path()]).status().unwrap().success());
    let log = ["--log", "/dev/null"];
    assert_eq!(run(&[&log[..], &["--", program.path()]].concat()).code, 0);
    let ended = run(&[&log[..], &["--strict", "--", program.path()]].concat());
    assert_eq!((ended.code, ended.errors.lines().count()), (126, 1), "{ended:?}");
    assert!(ended.errors.contains("Operation not permitted"), "{ended:?}");
}

#[test]
fn pings_are_refused_where_strict_and_queries_work() {
    let program = "
import socket
for family, kind in [(2, 1), (10, 58)]:
    try:
        socket.socket(family, socket.SOCK_DGRAM, kind)
    except PermissionError as error:
        print(error.errno)
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind(('127.0.0.1', 0))
client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
client.sendto(b'hello', server.getsockname())
print(server.recv(99).decode())";
    // Pings are allowed or not by network namespace.
    let allow = r#"ip link set lo up && echo "0 2147483647" > /proc/sys/net/ipv4/ping_group_range && exec "$@""#;
    let mut command = Command::new("unshare");
    command.args(["--net", "sh", "-c", allow, "sh"]).arg(carnet()).args(["run", "--json", "--strict", "--"]);
    let ended = finish(undisturbed(command.args(["python3", "-c", program])));
    assert_eq!((ended.code, &ended.output[..]), (0, "13\n13\nhello\n"), "{ended:?}");
    let objects = objects(&ended.errors);
    let [ping, ping6, flow, _summary] = &objects[..] else { panic!("two pings and the query: {objects:#?}") };
    for (ping, family) in [(ping, "ipv4"), (ping6, "ipv6")] {
        assert_eq!([&ping["type"], &ping["kind"], &ping["family"]], ["socket", "ping", family]);
    }
    assert_eq!((&flow["protocol"], &flow["decision"]), (&"udp".into(), &"not-inspected".into()));
}

#[test]
fn the_help_says_what_the_options_do() {
    let Ended { code, output, .. } = run(&["--help"]);
    assert_eq!(code, 0);
    for option in ["--block-quic", "--strict"] {
        assert!(output.contains(option), "{output}");
    }
}

/// It connects a UDP socket to each address of a name, and puts those last that this fails for.
#[test]
fn getaddrinfo_is_neither_told_nor_hindered() {
    // A host with an IPv4 route and no IPv6 one, and a name with both addresses.
    let namespace = r#"printf '192.0.2.1 two.example\n2001:db8::1 two.example\n' > "$0" && mount --bind "$0" /etc/hosts &&
        ip link set lo up && ip addr add 10.9.9.1/24 dev lo && ip route add default dev lo src 10.9.9.1 && exec "$@""#;
    let program = "import socket
print(*[to[4][0] for to in socket.getaddrinfo('two.example', 443, type=socket.SOCK_STREAM)])";
    for options in [&[][..], &["--block-quic"]] {
        let hosts = Scratch::new();
        let mut command = Command::new("unshare");
        command.args(["--net", "--mount", "--propagation", "private", "sh", "-c", namespace, hosts.path()]);
        command.arg(carnet()).arg("run").args(options).args(["--", "python3", "-c", program]);
        let ended = finish(undisturbed(&mut command));
        assert_eq!((ended.code, &ended.output[..]), (0, "192.0.2.1 2001:db8::1\n"), "{options:?}: {ended:?}");
        assert_eq!(ended.errors, "carnet: 0 flows, 0 B up, 0 B down\n", "{options:?}");
    }
}

/// A program that makes one socket of each kind and says how that went.
fn attempts(head: &str) -> String {
    format!(
        "
import socket
{head}
    for name, kind in [('raw', (2, 3, 1)), ('udp-lite', (10, 2, 136)), ('packet', (17, 3, 0x300)), ('old packet', (2, 10, 0x300))]:
        try:
            socket.socket(*kind).close()
            print(name, 0)
        except OSError as error:
            print(name, error.errno)"
    )
}
