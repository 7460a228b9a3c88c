"""A service that opens its IPv6 listener some time after the other one: late.py PORT"""

import select
import socket
import sys
import time

port = int(sys.argv[1])
listeners = [socket.create_server(("127.0.0.1", port))]
time.sleep(0.3)
listeners.append(socket.create_server(("::1", port), family=socket.AF_INET6))
while True:
    for listener in select.select(listeners, [], [])[0]:
        listener.accept()[0].close()
