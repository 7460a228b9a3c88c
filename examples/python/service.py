#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
"""A redirect service with nothing but the standard library: two of Carnet's socket options are all it needs.

It says who goes where (pid, name, destination, how many services have had the flow) and carries every connection on
as it is:

    carnet run --through 'python3 examples/python/service.py {port}' -- curl https://example.org/

The options and the structure are those of crates/carnet-abi/include/carnet_abi.h; docs/socket-options.md lists every
answer and every error.
"""

import errno
import ipaddress
import re
import socket
import struct
import sys
import threading
import time

SOL_CARNET = 0x4341
CARNET_RECORDS = 1  # get: the record of an accepted connection, opaque bytes; set: on the socket with which we go on
CARNET_FLOW = 3  # get: struct carnet_flow
RECORDS_MAX = 640  # no record is longer
FLOW_MAX = 1024  # more than the structure has today, for it grows at its end; and the most that Python reads

ADDRESS = "16sIHxx"  # struct carnet_addr: IPv4 as ::ffff:a.b.c.d, scope id, port
# struct carnet_flow up to its chain: version, size, depth, flow id; struct carnet_origin (remote, local, time,
# start_time, cgroup_id, netns_cookie, exe_ino, exe_dev, pid, uid, gid, ifindex, family, protocol, flags, comm); remote.
FLOW = struct.Struct("=HHI16s" + ADDRESS + ADDRESS + "5Q5IBBH16s" + ADDRESS)
PID, COMM = 16, 23  # their places in what FLOW unpacks
DESTINATION = slice(24, 27)

NO_RECORD = {
    errno.ENODATA: "it was not redirected",
    errno.EIDRM: "context lost: it was redirected, but its record is missing",
    errno.EOPNOTSUPP: "no engine answers here: start the service in a cgroup which the engine covers",
    errno.ENOPROTOOPT: "no engine answers here: start the service in a cgroup which the engine covers",
}


def main():
    if len(sys.argv) != 2:
        sys.exit("usage: service.py PORT")
    port = int(sys.argv[1])
    # Both families, for an IPv6-only socket cannot be sent to an IPv4 listener.
    v4 = socket.create_server(("127.0.0.1", port), backlog=1024)
    try:
        v6 = socket.create_server(("::1", port), family=socket.AF_INET6, backlog=1024)
        threading.Thread(target=accept_all, args=(v6,), daemon=True).start()
    except OSError as error:
        if error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
            raise
        log("this host has no IPv6")
    accept_all(v4)


def accept_all(listener):
    while True:
        try:
            client, _ = listener.accept()
            threading.Thread(target=serve, args=(client,), daemon=True).start()
        except (OSError, RuntimeError) as error:
            log(f"accept: {error}")
            time.sleep(0.1)  # out of files or threads until other flows end


def serve(client):
    with client:
        server = go_on(client)
        if server is None:
            reset_when_closed(client)  # a plain close would look like an empty answer
            return
        with server:
            answers = threading.Thread(target=copy, args=(server, client), daemon=True)
            answers.start()
            copy(client, server)
            answers.join()


def go_on(client):
    """Connects to where the client was going, with its record set; None where that cannot be."""
    try:
        flow = FLOW.unpack_from(client.getsockopt(SOL_CARNET, CARNET_FLOW, FLOW_MAX))
        records = client.getsockopt(SOL_CARNET, CARNET_RECORDS, RECORDS_MAX)
    except OSError as error:
        log(f"connection closed: {NO_RECORD.get(error.errno, error)}")
        return None

    depth = flow[2]
    family, destination, shown = address(*flow[DESTINATION])
    # The name is the process's own choice: print nothing of it that a terminal would obey.
    comm = re.sub(rb"[^!-~]", b"?", flow[COMM].split(b"\0")[0]).decode()
    say(sys.stdout, f"{flow[PID]} {comm} {shown} {depth}")

    server = socket.socket(family, socket.SOCK_STREAM)
    try:
        # Before connect(), or not at all: without its record this would look like a new connection of our own.
        server.setsockopt(SOL_CARNET, CARNET_RECORDS, records)
        server.connect(destination)
    except OSError as error:
        log(f"connection to {shown} closed: {error}")
        server.close()
        return None
    return server


def address(ip, scope, port):
    """struct carnet_addr as family, argument of connect(), and text."""
    v6 = ipaddress.IPv6Address(ip)
    if v6.ipv4_mapped:
        return socket.AF_INET, (str(v6.ipv4_mapped), port), f"{v6.ipv4_mapped}:{port}"
    return socket.AF_INET6, (str(v6), port, 0, scope), f"[{v6}]:{port}"


def copy(source, target):
    """One direction, to its end; the other goes on, for a client may close its half and still wait for the answer."""
    try:
        while data := source.recv(65536):
            target.sendall(data)
    except OSError:
        reset_when_closed(source)
        reset_when_closed(target)
        return
    try:
        target.shutdown(socket.SHUT_WR)
    except OSError:
        pass  # the target has gone; its own direction has seen that


def reset_when_closed(connection):
    """Ends the reads of the other direction, without a word to the peer; closing then sends a reset."""
    try:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.shutdown(socket.SHUT_RD)
    except OSError:
        pass  # reset already


def log(message):
    say(sys.stderr, f"service.py: {message}")


def say(stream, line):
    """A line in one piece, whatever other threads print."""
    stream.write(line + "\n")
    stream.flush()


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        pass
    except (OSError, ValueError) as error:
        sys.exit(f"service.py: {error}")
