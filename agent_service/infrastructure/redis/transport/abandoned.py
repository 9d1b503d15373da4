"""Connections that were dropped while a reply was missing.

A command whose reply nobody awaits any more may still run: it may lie in the buffer of a server that hangs, or be on
its way there, and be executed after commands that were sent later on other connections. So each connection asks the
server for its identity when it is opened. Before a decision that a late command must not undo, the server is told to
close the abandoned connections, with all that they still hold.
"""

import re
from collections import OrderedDict
from collections.abc import Iterable
from typing import Any, TypeAlias
from weakref import WeakKeyDictionary

from redis.exceptions import ResponseError

from agent_service.infrastructure.redis.transport.base import Command

__all__ = ["Abandoned", "drop", "greet_and_identify"]

_MOST = 1000
_IDENTITY = re.compile(rb"\bid=(\d+) addr=(\S+)")

Identity: TypeAlias = tuple[bytes, bytes]
"""Number and address of a connection."""

_identities: "WeakKeyDictionary[Any, Identity | None]" = WeakKeyDictionary()
"""Of each open connection; None: the server denies CLIENT INFO."""


async def greet_and_identify(connection: Any) -> None:
    """Greet the server as redis-py does, and ask for the identity of this connection. For ``redis_connect_func``."""
    await connection.on_connect()
    try:
        await connection.send_command("CLIENT", "INFO")
        found = _IDENTITY.search(await connection.read_response())
    except ResponseError:
        _identities[connection] = None
        return
    if found is not None:
        _identities[connection] = (found[1], found[2])


class Abandoned:
    """The connections that one transport abandoned, at most a thousand: the oldest is forgotten first."""

    def __init__(self) -> None:
        self._abandoned: OrderedDict[Identity, None] = OrderedDict()
        self._unidentified = False

    def add(self, connection: Any) -> None:
        """Note that a connection was dropped while a reply was missing."""
        if connection not in _identities:
            return
        identity = _identities.pop(connection)
        if identity is None:
            self._unidentified = True
        else:
            self._abandoned[identity] = None
            while len(self._abandoned) > _MOST:
                self._abandoned.popitem(last=False)

    def take_unidentified(self) -> bool:
        """Return whether a connection without identity was abandoned since the last call."""
        unidentified, self._unidentified = self._unidentified, False
        return unidentified

    def identities(self) -> list[Identity]:
        """Return the identities of the others."""
        return list(self._abandoned)

    def forget(self, dropped: Iterable[Identity]) -> None:
        """Note that the server closed these."""
        for identity in dropped:
            self._abandoned.pop(identity, None)


def drop(identity: Identity) -> Command:
    """Return the command that makes the server close a connection.

    Number and address together match no other client, even after a restart of the server, which counts from 1 again.
    """
    number, address = identity
    return ("CLIENT", "KILL", "ID", number, "ADDR", address)
