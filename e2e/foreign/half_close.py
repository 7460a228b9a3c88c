"""Sends bytes to every address many times at once, says that this was all, and wants the same bytes back.

usage: half_close.py COUNT SIZE IP PORT [IP PORT]...
"""

import concurrent.futures
import hashlib
import socket
import sys


def exchange(number, size, ip, port):
    block = hashlib.sha256(b"%d %s %d" % (number, ip.encode(), port)).digest()
    sent = block * (size // len(block))
    with socket.create_connection((ip, port), timeout=20) as connection:
        assert connection.getpeername()[:2] == (ip, port), connection.getpeername()
        connection.sendall(sent)
        connection.shutdown(socket.SHUT_WR)
        received = b"".join(iter(lambda: connection.recv(65536), b""))
    assert received == sent, f"sent {len(sent)} bytes to {ip} port {port}, got {len(received)}"


def main():
    count, size = int(sys.argv[1]), int(sys.argv[2])
    addresses = list(zip(sys.argv[3::2], map(int, sys.argv[4::2])))
    with concurrent.futures.ThreadPoolExecutor(count * len(addresses)) as pool:
        exchanges = [pool.submit(exchange, number, size, *at) for at in addresses for number in range(count)]
        for each in exchanges:
            each.result()
    print(len(exchanges))


main()
