"""A service that takes every connection to one address of its own choice, and carries no record.

usage: elsewhere.py PORT ADDRESS PORT
"""

import socket
import sys
import threading


def copy(source: socket.socket, sink: socket.socket) -> None:
    while data := source.recv(65536):
        sink.sendall(data)
    sink.shutdown(socket.SHUT_WR)


port, address, elsewhere = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
with socket.create_server(("127.0.0.1", port)) as listener:
    while True:
        client, _ = listener.accept()
        server = socket.create_connection((address, elsewhere))
        threading.Thread(target=copy, args=(client, server), daemon=True).start()
        threading.Thread(target=copy, args=(server, client), daemon=True).start()
