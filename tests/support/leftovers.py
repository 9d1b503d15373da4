"""What a test must not leave behind, looked for from outside."""

import threading
from pathlib import Path
from typing import Any, TypeVar

import pytest

from tests.servers.redis import GivenServer, RedisServer

T = TypeVar("T")

_FOREVER = """
local found = {}
for _, key in ipairs(redis.call('KEYS', '*')) do
  if redis.call('PTTL', key) == -1 then found[#found + 1] = key end
end
return found
"""


def remembered(monkeypatch: pytest.MonkeyPatch, kind: type[T]) -> list[T]:
    """Return a list of the objects of a class, which grows as they are made."""
    made: list[T] = []
    make = kind.__init__

    def make_and_remember(self: T, *args: Any, **kwargs: Any) -> None:
        make(self, *args, **kwargs)
        made.append(self)

    monkeypatch.setattr(kind, "__init__", make_and_remember)
    return made


def connections(server: RedisServer | GivenServer) -> set[bytes]:
    """Return the identities of the connections to a server, but for the one that asks."""
    lines = server.cli("CLIENT", "LIST").splitlines()
    return {line.split()[0] for line in lines if b"cmd=client" not in line}


def keys(server: RedisServer | GivenServer, pattern: str) -> list[bytes]:
    """Return the keys of a server that match."""
    found: list[bytes] = server.cli("KEYS", pattern)
    return found


def immortal_keys(server: RedisServer | GivenServer) -> list[bytes]:
    """Return the keys of a server without a time to live."""
    found: list[bytes] = server.cli("EVAL", _FOREVER, 0)
    return found


def open_sockets() -> set[str]:
    """Return the descriptors of this process that are sockets."""
    return {descriptor.name for descriptor in Path("/dev/fd").iterdir() if descriptor.is_socket()}


def pool_threads() -> set[threading.Thread]:
    """Return the threads of this process that the package started."""
    return {each for each in threading.enumerate() if each.name.startswith("agent-service-")}
