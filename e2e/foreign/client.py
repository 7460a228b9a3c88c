"""Fetches every target many times at once, each time by a connection of its own, and prints the peer of each.

usage: client.py CERTIFICATES COUNT URL@ADDRESS...
"""

import asyncio
import ssl
import sys
from urllib.parse import urlsplit


async def fetch(url, address, context):
    tls = {"ssl": context, "server_hostname": url.hostname} if url.scheme == "https" else {}
    reader, writer = await asyncio.open_connection(address, url.port, **tls)
    peer = writer.get_extra_info("peername")
    writer.write(f"GET {url.path} HTTP/1.1\r\nHost: {url.netloc}\r\nConnection: close\r\n\r\n".encode())
    answer = await reader.read()
    writer.close()
    status, _, body = answer.partition(b"\r\n\r\n")
    assert status.startswith(b"HTTP/1.1 200") or status.startswith(b"HTTP/1.0 200"), answer[:200]
    assert body == url.path.encode() * 1000, f"{len(body)} bytes"
    return f"[{peer[0]}]:{peer[1]}" if ":" in peer[0] else f"{peer[0]}:{peer[1]}"


async def main():
    context = ssl.create_default_context(cafile=sys.argv[1])
    targets = [target.rsplit("@", 1) for target in sys.argv[3:]]
    fetches = [fetch(urlsplit(url), at, context) for url, at in targets for _ in range(int(sys.argv[2]))]
    for peer in await asyncio.wait_for(asyncio.gather(*fetches), 20):
        print(peer)


asyncio.run(main())
