"""How many connections there may be, in all and from one address, so that nobody can take the last descriptor.   [T-8]

A node that cannot open a file can neither commit nor answer; what is refused here is refused visibly, at the door.
"""

from __future__ import annotations

import asyncio
import resource
from collections import Counter
from ipaddress import ip_address
from typing import Any

from aiohttp import web

PER_ADDRESS = 256
MOST = 8_192
RESERVED = 128
"""Descriptors that stay for the database, the chains and the files; half of the limit where that is less."""

WANTED_DESCRIPTORS = 16_384

IDLE_SECONDS = 30.0
"""A connection that has not sent a whole head for this long is closed, whether it sends nothing or a byte now and then.

Bodies have their own time-out, WebSockets their pings."""

REFUSAL = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json; charset=utf-8\r\nContent-Length: 63\r\n"
    b"Connection: close\r\nRetry-After: 5\r\n\r\n"
    b'{"code":"TOO_MANY_REQUESTS","message":"Too many connections"}\r\n'
)

class Connections:
    """Counts the connections of a server, WebSockets included, and closes those that are too many."""

    def __init__(self, most: int, per_address: int = PER_ADDRESS) -> None:
        self.most = most
        self.per_address = per_address
        self.count = 0
        self.refused = 0
        self._of_address: Counter[str] = Counter()

    def guard(self, server: web.Server) -> None:
        """Stand between the server and its connections; to be called before it listens."""
        made, lost = server.connection_made, server.connection_lost
        counted: dict[Any, str] = {}

        def connection_made(handler: Any, transport: asyncio.Transport) -> None:
            made(handler, transport)
            address = _address(transport.get_extra_info("peername"))
            if not self._has_room(address):
                self.refused += 1
                transport.write(REFUSAL)
                transport.close()
                return
            counted[handler] = address
            self.count += 1
            self._of_address[address] += 1

        def connection_lost(handler: Any, exc: BaseException | None = None) -> None:
            lost(handler, exc)
            address = counted.pop(handler, None)
            if address is not None:
                self.count -= 1
                self._of_address[address] -= 1
                if not self._of_address[address]:
                    del self._of_address[address]

        server.connection_made = connection_made  # type: ignore[method-assign]
        server.connection_lost = connection_lost  # type: ignore[method-assign]

    def _has_room(self, address: str) -> bool:
        if self.count >= self.most:
            return False
        limit = self.per_address
        if address == LOCAL:
            # A proxy in front, or a sandbox's own tools: more than others, but never all.
            limit = max(limit, self.most // 2)
        return self._of_address[address] < min(limit, max(1, self.most // 2))


LOCAL = "local"


def _address(peer: Any) -> str:
    """Whom connections are counted for: an IPv4 address, the first half of an IPv6 one, or everybody local as one."""
    if not peer or not isinstance(peer, tuple):
        return LOCAL
    address = ip_address(str(peer[0]).partition("%")[0])
    if address.version == 6 and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    if address.is_loopback:
        return LOCAL
    return str(address) if address.version == 4 else address.packed[:8].hex()


def most_connections() -> int:
    """As many as the process has descriptors for, after asking for more of those."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = WANTED_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, WANTED_DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        soft = wanted
    if soft == resource.RLIM_INFINITY:
        return MOST
    return max(1, min(MOST, soft - min(RESERVED, soft // 2)))
