"""A process of the release whose bookkeeping lies beside the prefix, reduced to the commands it sends.

The scripts beside this file are those of that release, unchanged. What is not here works as it does today: the form of
entries has not changed.
"""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent_service.core.envelope import pack_tags, read_head, seal
from agent_service.core.glob import compile_glob
from tests.servers.redis import run_command

ROOT = b"agent_service"
_SCRIPTS = {path.stem: path.read_text() for path in Path(__file__).parent.glob("*.lua")}


@dataclass(frozen=True)
class FormerLoad:
    """A load under way."""

    key: str
    lease: bytes
    tokens: dict[str, bytes]


class FormerProcess:
    """What such a process does with one namespace, synchronously. Values are integers."""

    def __init__(self, url: str, namespace: str = "default") -> None:
        self._url = url
        self._entries = ROOT + b":" + namespace.encode() + b":"
        self._token = ROOT + b"%token:{" + namespace.encode() + b"}"

    def _run(self, *command: Any) -> Any:
        return run_command(self._url, *command)

    def _script(self, name: str, keys: Sequence[bytes], *arguments: Any) -> Any:
        return self._run("EVAL", _SCRIPTS[name], len(keys), *keys, *arguments)

    def _entry(self, key: str) -> bytes:
        return self._entries + key.encode()

    def _lease(self, key: str) -> bytes:
        return ROOT + b"%lease:{" + self._entry(key) + b"}"

    def _name(self, tag: str) -> bytes:
        return self._token + (b":" + tag.encode() if tag else b"")

    def _take(self, tags: Sequence[str], seconds: int = 300) -> dict[str, bytes]:
        names = ["", *tags]
        made = [secrets.token_bytes(8) for _ in names]
        found = self._script("tokens_take", [self._name(name) for name in names], seconds * 1000, *made)
        return dict(zip(names, found, strict=True))

    def get(self, key: str) -> int | None:
        data = self._run("MGET", self._entry(key), self._name(""))[0]
        if data is None:
            return None
        head = read_head(data)
        standing = self._run("MGET", *[self._name(name) for name in head.tags])
        return int(data[head.end :]) if "" in head.tags and standing == list(head.tags.values()) else None

    def set(self, key: str, value: int, tags: Sequence[str] = ()) -> None:
        self._script("entry_put", [self._entry(key), self._lease(key)], _seal(value, self._take(tags)), 300_000)

    def increment(self, key: str) -> int:
        keys = [self._entry(key), self._lease(key), ROOT + b"%changes:0123456789abcdef"]
        fresh = _seal(0, self._take(()))[:-1]
        reply: Any = self._script("increment", keys, 1, 300_000, fresh, b"", fresh, secrets.randbits(40), 0, 3_600_000)
        if isinstance(reply, list):
            invalid = reply[0][: read_head(reply[0]).end]
            reply = self._script(
                "increment", keys, 1, 300_000, fresh, invalid, fresh, secrets.randbits(40), 0, 3_600_000
            )
        return int(reply)

    def delete(self, *keys: str) -> None:
        self._run("UNLINK", *map(self._lease, keys))
        self._run("UNLINK", *map(self._entry, keys))

    def delete_pattern(self, pattern: str) -> None:
        matches = compile_glob(pattern)
        start = ROOT + b"%lease:{" + self._entries
        for lease in self._run("SCAN", 0, "MATCH", ROOT + b"%lease:*", "COUNT", 1000)[1]:
            if lease.startswith(start) and matches(lease[len(start) : -1]):
                self._run("UNLINK", lease)
        for entry in self._run("SCAN", 0, "MATCH", self._entries + pattern.encode(), "COUNT", 1000)[1]:
            self._run("UNLINK", entry)

    def invalidate_tags(self, tags: Sequence[str]) -> None:
        self._run("UNLINK", self._token + b"*", *[self._name(tag) for tag in tags])

    def clear(self) -> None:
        self._run("UNLINK", self._name(""))

    def begin_load(self, key: str, tags: Sequence[str] = ()) -> FormerLoad:
        tokens = self._take(tags)
        mine = secrets.token_bytes(12)
        return FormerLoad(key, self._script("lease_take", [self._lease(key)], mine, 10_000, "share"), tokens)

    def finish_load(self, load: FormerLoad, value: int) -> bool:
        keys = [self._entry(load.key), self._lease(load.key)]
        return bool(self._script("lease_fill", keys, load.lease, _seal(value, load.tokens), 300_000))


def _seal(value: int, tokens: dict[str, bytes]) -> bytes:
    return seal(b"%d" % value, tags=pack_tags(tokens))
