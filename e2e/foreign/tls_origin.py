"""An HTTPS server on both loopback addresses that counts requests by path.

Prints its two addresses, and for every line of standard input what it has served until then, as JSON. Ends with its
input.

usage: tls_origin.py CERTIFICATE KEY
"""

import json
import socket
import ssl
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

SERVED = []


class Handler(BaseHTTPRequestHandler):
    timeout = 10

    def do_GET(self):
        SERVED.append(self.path)
        body = self.path.encode() * 1000
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Server(ThreadingHTTPServer):
    request_queue_size = 1024

    def __init__(self, address, context):
        self.address_family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self.context = context
        super().__init__((address, 0), Handler)

    def get_request(self):
        connection, address = super().get_request()
        # The handshake is done in the connection's own thread, at the first read.
        return self.context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False), address

    def shutdown_request(self, request):
        # Waits for the client's end: a close before it comes would be a reset.
        try:
            request.shutdown(socket.SHUT_WR)
            while request.recv(65536):
                pass
        except OSError:
            pass
        self.close_request(request)

    def handle_error(self, request, address):
        print(f"tls_origin: {address}: {sys.exc_info()[1]}", file=sys.stderr)


def main():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(sys.argv[1], sys.argv[2])
    servers = [Server(address, context) for address in ("127.0.0.1", "::1")]
    for server in servers:
        threading.Thread(target=server.serve_forever, daemon=True).start()
    print("127.0.0.1:%d [::1]:%d" % tuple(server.server_address[1] for server in servers), flush=True)
    for _ in sys.stdin:
        print(json.dumps(SERVED), flush=True)


main()
