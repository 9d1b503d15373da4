"""A fence in Redis itself, for records in Redis: it holds between all processes that share them.

Each record has a sorted set beside it, whose members are the writers and leases under way and whose scores say until
when they count; see ``lua/fence.lua``. Every step is one script for each record and one round trip for all of them. The
set shares the record's slot on a cluster, is called ``{start}~%fence:`` and the record's key, and lives as long as its
latest member.

Processes of earlier releases know the set under another name. While one may run, both names are used: a writer of
either sort counts for the other, and breaks its leases.
"""

import math
import re
import secrets
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import Final
from weakref import WeakKeyDictionary

from agent_service.context.documents import EncodedDocument
from agent_service.context.fences.protocol import LEASE_SECONDS, Fence
from agent_service.context.interface import Document
from agent_service.core.errors import RedisDeniedError
from agent_service.core.keys import name_beside
from agent_service.core.store_metrics import store_errors
from agent_service.infrastructure.redis.client import RedisClient
from agent_service.infrastructure.redis.former_names import FormerNames
from agent_service.infrastructure.redis.records.fields import write_record
from agent_service.infrastructure.redis.records.sets import lifetime_of
from agent_service.infrastructure.redis.scripts import Script, load_script
from agent_service.infrastructure.redis.transport.base import Argument

__all__ = ["FENCE_MARK", "RedisFence"]

FENCE_MARK: Final = b"~%"
"""What follows the common beginning of records in the name of a fence."""

_BEGIN = load_script("fence", "fence_begin")
_RENEW = load_script("fence", "fence_renew")
_FINISH = load_script("fence", "fence_finish")
_LEASE = load_script("fence", "fence_lease")
_FILL = load_script("fence", "fence_fill")
_BRACES: Final = re.compile(rb"[{}]")
_HASH_TAG: Final = re.compile(rb"^[^{]*\{[^}]+\}")
_CHUNK: Final = 1000


class RedisFence(Fence):
    """The fence of the records of one store. See the module and :mod:`.protocol`.

    :param client: returns the running loop's client, or an awaitable of it.
    :param start: what the Redis keys of all records begin with; none continues with :data:`FENCE_MARK`.
    :param lease: seconds that a writer or reader counts as under way, unless it is renewed.
    :param store: name of the store's class, for errors and metrics.
    """

    by_field = True

    def __init__(
        self,
        client: Callable[[], RedisClient | Awaitable[RedisClient]],
        start: bytes,
        lease: float = LEASE_SECONDS,
        *,
        store: str = "RedisContextStore",
    ) -> None:
        self._client = client
        self._start = start
        self._stem = start + FENCE_MARK + b"fence:"
        self._lease = lifetime_of(lease)
        self._store = store
        self._ttl, self._lifetime = math.inf, 0
        self._former: WeakKeyDictionary[RedisClient, FormerNames] = WeakKeyDictionary()

    async def begin(self, keys: Collection[str]) -> str:
        token = secrets.token_hex(8)
        await self._run("begin to write through a cache", _BEGIN, keys, [(token, self._lease)] * len(keys))
        return token

    async def renew(self, token: str, keys: Collection[str]) -> str:
        await self._run("go on writing through a cache", _RENEW, keys, [(token, self._lease)] * len(keys))
        return token

    async def finish(self, token: str, keys: Collection[str], documents: Mapping[str, Document], ttl: float) -> None:
        header = self._header(token, ttl)
        rows: list[Sequence[Argument]] = []
        for key in keys:
            document = documents.get(key)
            rows.append(header if document is None else (*header, *_fields(document)))
        await self._run("finish writing through a cache", _FINISH, keys, rows)

    async def lease(self, keys: Collection[str]) -> str:
        token = secrets.token_hex(8)
        await self._run("take a lease in a cache", _LEASE, keys, [(token, self._lease)] * len(keys))
        return token

    async def fill(
        self,
        token: str,
        keys: Collection[str],  # noqa: ARG002 - the leases of those without a document end by themselves
        documents: Mapping[str, Document],
        ttl: float,
    ) -> int:
        if not documents:
            return 0
        header = self._header(token, ttl)
        rows = [(*header, *_fields(each)) for each in documents.values()]
        return sum(await self._run("fill a cache", _FILL, documents, rows))

    async def _run(
        self, action: str, script: Script, keys: Collection[str], rows: Sequence[Sequence[Argument]]
    ) -> list[int]:
        """Run a script for each record, in one round trip."""
        names = self._names(keys)
        client = self._client()
        if not isinstance(client, RedisClient):
            client = await client
        former = self._former.get(client) or self._former_names(client)
        beside = former.in_use
        with store_errors(self._store, action):
            while True:
                try:
                    if len(names) == 1:
                        return [await client.run_script(script, names[0] if beside else names[0][:2], rows[0])]
                    return await _run_many(client, script, names if beside else [each[:2] for each in names], rows)
                except RedisDeniedError:  # a command is refused whole, before it changes anything
                    if not (beside and await former.give_up(client)):
                        raise
                    beside = False

    def _header(self, token: str, ttl: float) -> tuple[Argument, ...]:
        if ttl != self._ttl:  # those who use one fence have one time to live
            self._ttl, self._lifetime = ttl, lifetime_of(None if ttl == math.inf else ttl)
        return token, self._lifetime

    def _names(self, keys: Collection[str]) -> list[list[bytes]]:
        """Return for each record its Redis key, the name of its fence, and a former one where that differs."""
        names = []
        for key in keys:
            record = self._start + key.encode()
            fence: bytes | None = self._stem + b"{" + record + b"}"
            if _BRACES.search(record) or not record:
                fence = name_beside(self._stem, record)
            # Beside a key with some braces no name can stand; its fence is called as it always was.
            names.append([record, _former_name(record)] if fence is None else [record, fence, _former_name(record)])
        return names

    def _former_names(self, client: RedisClient) -> FormerNames:
        return self._former.setdefault(
            client, FormerNames.of(client, _former_name(self._start), f"{self._start.decode()}*")
        )


def _fields(document: Document) -> list[bytes]:
    fields = document.fields if type(document) is EncodedDocument else None
    return fields or write_record(document)


async def _run_many(
    client: RedisClient, script: Script, names: Sequence[Sequence[bytes]], rows: Sequence[Sequence[Argument]]
) -> list[int]:
    replies: list[int] = []
    for start in range(0, len(names), _CHUNK):
        chunk = zip(names[start : start + _CHUNK], rows[start : start + _CHUNK], strict=True)
        replies += await client.pipeline([("EVAL", script.source, len(each), *each, *row) for each, row in chunk])
    return replies


def _former_name(record: bytes) -> bytes:
    # What stands between the first braces is the hash tag, which alone decides the slot.
    return b"%fence:" + (record if _HASH_TAG.match(record) else b"{" + record + b"}")
