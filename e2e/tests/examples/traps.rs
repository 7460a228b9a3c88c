//! What docs/languages.md warns of is so in the languages themselves. If one of these fails with a newer version, the document
//! is to be changed.

use std::fs;
use std::path::Path;

use carnet_e2e::programs::{Scratch, program, require, succeed};

use crate::services::{compile, go};

#[test]
fn python_reads_1024_bytes_of_an_option_at_most() {
    let script = "import socket
s = socket.socket()
assert len(s.getsockopt(socket.SOL_TCP, socket.TCP_INFO, 1024)) > 100
try: s.getsockopt(socket.SOL_TCP, socket.TCP_INFO, 1025)
except OSError as error: print(error)";
    assert_eq!(said_by("python3", "-c", script), "getsockopt buflen out of range");
}

#[test]
fn go_switches_a_connection_to_blocking_when_asked_for_its_files_descriptor() {
    let source = r#"package main

import (
	"fmt"
	"net"
	"syscall"
)

func main() {
	listener, _ := net.Listen("tcp", "127.0.0.1:0")
	go net.Dial("tcp", listener.Addr().String())
	accepted, _ := listener.Accept()
	client := accepted.(*net.TCPConn)
	before := isNonBlocking(client)
	file, _ := client.File()
	file.Fd()
	fmt.Println(before, isNonBlocking(client))
}

func isNonBlocking(client *net.TCPConn) bool {
	raw, _ := client.SyscallConn()
	var flags uintptr
	raw.Control(func(fd uintptr) {
		flags, _, _ = syscall.Syscall(syscall.SYS_FCNTL, fd, syscall.F_GETFL, 0)
	})
	return flags&syscall.O_NONBLOCK != 0
}
"#;
    require(&["go"]);
    let scratch = Scratch::new();
    fs::write(scratch.file("main.go"), source).unwrap();
    assert_eq!(compile(go(&mut program("go")).arg("run").arg(scratch.file("main.go"))).trim(), "true false");
}

/// The socket it is given is that with the record; one that it makes has none.
#[test]
fn a_request_of_nodes_goes_by_the_socket_it_is_given_only_where_there_is_no_agent() {
    let script = "const http = require('node:http'), net = require('node:net');
const origin = http.createServer((request, response) => response.end()).listen(0, '127.0.0.1', async () => {
  const to = { host: '127.0.0.1', port: origin.address().port };
  const ask = (options) => new Promise((done) => {
    const given = net.connect(to);
    const request = http.request({ ...to, ...options, createConnection: () => given }, (response) => {
      response.resume().on('end', () => { done(request.socket === given); given.destroy(); });
    }).end();
  });
  console.log(await ask({}), await ask({ agent: false }), await ask({ agent: new http.Agent() }));
  origin.close();
});";
    assert_eq!(said_by("node", "-e", script), "true false false");
}

fn said_by(runtime: &str, option: &str, script: &str) -> String {
    require(&[runtime]);
    succeed(program(runtime).args([option, script]).current_dir(Path::new("/"))).trim().to_owned()
}
