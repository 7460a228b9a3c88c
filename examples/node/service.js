// SPDX-License-Identifier: MIT OR Apache-2.0
//
// A redirect service in Node: two of Carnet's socket options are all it needs. Node has no socket options of its own
// choosing, so a small addon makes the system calls.
//
// It says who goes where (pid, name, destination, how many services have had the flow) and carries every connection on
// as it is. From the top of the repository:
//
//   gcc -O2 -Wall -Wextra -Werror -shared -fPIC -o target/sockopt.node examples/node/sockopt.c \
//       -I "$(node -p 'path.resolve(process.execPath, "../../include/node")')"
//   carnet run --through 'node examples/node/service.js {port}' -- curl https://example.org/
//
// The options and the structure are those of crates/carnet-abi/include/carnet_abi.h; docs/languages.md says what is
// special about Node, docs/socket-options.md lists every answer and every error.
'use strict';

const fs = require('node:fs');
const net = require('node:net');
const os = require('node:os');
const util = require('node:util');
const sockopt = require('../../target/sockopt.node');

const SOL_CARNET = 0x4341;
const CARNET_RECORDS = 1; // get: the record of an accepted connection, opaque bytes; set: on a socket to go on with
const CARNET_FLOW = 3; // get: struct carnet_flow
const RECORDS_MAX = 640; // no record is longer
const FLOW_MAX = 1024; // more than the structure has today, for it grows at its end
const AF_INET = 2;
const AF_INET6 = 10;

// Where the fields of struct carnet_flow are. An address has 16 bytes of IPv6, IPv4 as ::ffff:a.b.c.d; its port is 20
// bytes behind its beginning.
const DEPTH = 4;
const PID = 116;
const COMM = 136;
const REMOTE = 152;

const { ENODATA, EIDRM, EOPNOTSUPP, ENOPROTOOPT } = os.constants.errno;
const NO_RECORD = {
  [ENODATA]: 'it was not redirected',
  [EIDRM]: 'context lost: it was redirected, but its record is missing',
  [EOPNOTSUPP]: 'no engine answers here: start the service in a cgroup which the engine covers',
  [ENOPROTOOPT]: 'no engine answers here: start the service in a cgroup which the engine covers',
};

function main() {
  const port = Number(process.argv[2]);
  if (process.argv.length !== 3 || !(port > 0 && port < 65536)) {
    console.error('usage: service.js PORT');
    process.exit(2);
  }
  // Both families, for an IPv6-only socket cannot be sent to an IPv4 listener.
  listen('127.0.0.1', port).on('error', fail);
  listen('::1', port).on('error', (error) => {
    if (!['EADDRNOTAVAIL', 'EAFNOSUPPORT'].includes(error.code)) fail(error);
    log('this host has no IPv6');
  });
}

// Half-open, or Node would end a connection for good as soon as one half of it has ended.
function listen(host, port) {
  return net.createServer({ allowHalfOpen: true }, serve).listen(port, host);
}

function serve(client) {
  let flow, server;
  try {
    flow = flowOf(client);
    console.log(`${flow.pid} ${flow.comm} ${flow.shown} ${flow.depth}`);
    server = goOn(client, flow);
  } catch (error) {
    log(`connection closed: ${NO_RECORD[error.errno] ?? error.message}`);
    client.resetAndDestroy(); // a plain close would look like an empty answer
    return;
  }
  server.on('error', (error) => {
    if (error.syscall === 'connect') log(`connection to ${flow.shown} closed: ${reason(error)}`);
    client.resetAndDestroy();
  });
  client.on('error', () => server.resetAndDestroy());
  // Each direction to its end; the other goes on, for a client may close its half and still wait for the answer.
  client.pipe(server);
  server.pipe(client);
}

// The descriptor is in no document of Node's, and has been there since its beginning. It stays the socket's own.
function flowOf(client) {
  const bytes = sockopt.getsockopt(client._handle.fd, SOL_CARNET, CARNET_FLOW, FLOW_MAX);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const little = os.endianness() === 'LE';
  const depth = view.getUint32(DEPTH, little);
  const pid = view.getUint32(PID, little);
  // The name is the process's own choice: print nothing of it that a terminal would obey.
  const comm = bytes.toString('latin1', COMM, COMM + 16).replace(/\0.*/s, '').replace(/[^!-~]/g, '?');
  const port = view.getUint16(REMOTE + 20, little);

  const groups = [0, 2, 4, 6, 8, 10, 12, 14].map((at) => view.getUint16(REMOTE + at));
  const isV4 = groups.slice(0, 6).join() === '0,0,0,0,0,65535';
  const host = isV4
    ? bytes.subarray(REMOTE + 12, REMOTE + 16).join('.')
    : new net.SocketAddress({ family: 'ipv6', address: groups.map((group) => group.toString(16)).join(':') }).address;
  const shown = isV4 ? `${host}:${port}` : `[${host}]:${port}`;
  return { pid, comm, depth, family: isV4 ? AF_INET : AF_INET6, host, port, shown };
}

// Connects to where the client was going, with its record set.
function goOn(client, { family, host, port }) {
  const records = sockopt.getsockopt(client._handle.fd, SOL_CARNET, CARNET_RECORDS, RECORDS_MAX);
  const fd = sockopt.socket(family);
  try {
    // Before connect(), or not at all: without its record this would look like a new connection of our own.
    sockopt.setsockopt(fd, SOL_CARNET, CARNET_RECORDS, records);
  } catch (error) {
    fs.closeSync(fd);
    throw error;
  }
  const server = new net.Socket({ fd, allowHalfOpen: true, readable: true, writable: true });
  return server.connect({ host, port }); // now: a socket that is not connecting when the event loop turns has hung up
}

function reason(error) {
  return util.getSystemErrorMap().get(error.errno)?.[1] ?? error.message;
}

function fail(error) {
  log(error.message);
  process.exit(1);
}

function log(message) {
  console.error(`service.js: ${message}`);
}

main();
