"""The address of the HTTP interface, without FastAPI: a command may try it before anything long begins."""

from __future__ import annotations

import errno
import socket

from service.access import Access, check_http_bind
from service.errors import AddressInUse, SettingsError
from service.settings import Settings

SEND_BUFFER_BYTES = 128 << 10
"""What the system holds of an answer for one connection. Left to itself it holds megabytes: nobody sees them taken."""


def bind(settings: Settings, access: Access) -> socket.socket:
    """The listening socket of ``settings.http``.

    Raises :class:`~service.errors.AccessRefused` where it would be open to others without tokens,
    :class:`AddressInUse` where another program has the port, :class:`SettingsError` for an address of no one here.
    """
    host, _, port = settings.http.rpartition(":")
    check_http_bind(host, access)
    bare = host.strip("[]")
    try:
        found = socket.getaddrinfo(bare, int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    except OSError as error:
        raise SettingsError(f"--http {settings.http}: {bare} is no address: {error.strerror}") from None
    # The protocol is named because asyncio sends small answers at once (TCP_NODELAY) only where it is: 40 ms less.
    listening = socket.socket(found[0], socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        listening.bind(found[4])
        listening.listen(128)
    except OSError as error:
        listening.close()
        if error.errno == errno.EADDRINUSE:
            told = f"{settings.http} is taken by another program; end it or name another address with --http"
            raise AddressInUse(told) from None
        raise SettingsError(f"--http {settings.http} can't be opened: {error.strerror}; name another address") from None
    return listening
