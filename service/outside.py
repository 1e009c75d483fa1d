"""What a worker holds of the outside: its data directory, locked, and its addresses, bound."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import zmq

from service import ingest, publish
from service.access import Access, Authenticator, check_bind, secure_server
from service.datadir import DataDirectory
from service.errors import AddressInUse, SettingsError
from service.settings import Settings


@dataclass(frozen=True)
class Outside:
    """Open until :func:`opened` is left. ``router`` and ``publisher`` are bound."""

    directory: DataDirectory
    context: zmq.Context[Any]
    router: zmq.Socket[Any]
    publisher: zmq.Socket[Any]
    access: Access


@contextmanager
def opened(settings: Settings) -> Iterator[Outside]:
    """Lock the data directory and bind the addresses of ``settings``.

    Raises :class:`~service.errors.DirectoryInUse`, :class:`~service.errors.DirectoryRefused`,
    :class:`~service.errors.AccessRefused`, :class:`~service.errors.AddressInUse`, :class:`SettingsError`.
    """
    access = Access.load(settings.access_folder)
    check_bind(settings.ingest, access)
    check_bind(settings.publish, access)
    with ExitStack() as stack:
        directory = DataDirectory(settings.data_dir)
        stack.callback(directory.close)
        context = stack.enter_context(zmq.Context())
        stack.enter_context(Authenticator(context, access))
        router, publisher = context.socket(zmq.ROUTER), context.socket(zmq.PUB)
        stack.callback(router.close)
        stack.callback(publisher.close)
        ingest.configure(router)
        publish.configure(publisher)
        _bind(router, settings.ingest, "ingest", access)
        _bind(publisher, settings.publish, "publish", access)
        yield Outside(directory, context, router, publisher, access)


def _bind(socket: zmq.Socket[Any], address: str, name: str, access: Access) -> None:
    secure_server(socket, access)
    try:
        socket.bind(address)
    except zmq.ZMQError as error:
        if error.errno == zmq.EADDRINUSE:
            raise AddressInUse(
                f"{address} is taken by another program; end that one or name another with --{name} tcp://HOST:PORT"
            ) from None
        raise SettingsError(f"--{name} {address} can't be opened: {error.strerror}; name one of this machine") from None
