"""Connections that were dropped while a reply was missing.

A command that was given up is not a command that will not run: it may stand in the buffer of a server that hangs, or be
on its way there, and be executed later than what was sent after it on other connections. So each connection learns what
the server calls it, and before anything is decided that a late command must not undo, the server is told to drop those
that were given up, with all they still hold.
"""

import re
from collections import OrderedDict
from collections.abc import Iterable
from typing import Any, TypeAlias
from weakref import WeakKeyDictionary

from redis.exceptions import ResponseError

from agent_service.infrastructure.redis.transport.base import Command

__all__ = ["Abandoned", "drop", "introduce"]

_MOST = 1000
_IDENTITY = re.compile(rb"\bid=(\d+) addr=(\S+)")

Identity: TypeAlias = tuple[bytes, bytes]
"""Number and address of a connection."""

_identities: "WeakKeyDictionary[Any, Identity | None]" = WeakKeyDictionary()
"""None: the server does not tell."""


async def introduce(connection: Any) -> None:
    """Greet the server as redis-py does, and learn what it calls this connection. For ``redis_connect_func``."""
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
    """The connections that one transport gave up. Bounded: the oldest is forgotten first."""

    def __init__(self) -> None:
        self._given_up: OrderedDict[Identity, None] = OrderedDict()
        self._nameless = False

    def add(self, connection: Any) -> None:
        """Note that a connection was dropped with a reply missing."""
        if connection not in _identities:
            return
        identity = _identities.pop(connection)
        if identity is None:
            self._nameless = True
        else:
            self._given_up[identity] = None
            while len(self._given_up) > _MOST:
                self._given_up.popitem(last=False)

    def take_nameless(self) -> bool:
        """Return whether, since this was last asked, one was dropped of which the server told no name."""
        nameless, self._nameless = self._nameless, False
        return nameless

    def identities(self) -> list[Identity]:
        """Return what the server calls them."""
        return list(self._given_up)

    def forget(self, dropped: Iterable[Identity]) -> None:
        """Note that the server dropped these."""
        for identity in dropped:
            self._given_up.pop(identity, None)


def drop(identity: Identity) -> Command:
    """Return the command that makes the server drop a connection.

    Number and address together name no other client, even after a restart of the server has begun to count anew.
    """
    number, address = identity
    return ("CLIENT", "KILL", "ID", number, "ADDR", address)
