"""Contexts in a key-value table of a database: in transactions of their own, or in one of the caller's."""

import math
from abc import abstractmethod
from collections.abc import Collection, Iterable, Mapping
from typing import Any, Final

from agent_service.context.base import Change, DocumentStore
from agent_service.context.documents import read_document
from agent_service.context.interface import Document, Key
from agent_service.context.keys import decode_key, encode_key, tuples_beginning
from agent_service.core.errors import ContextStoreError
from agent_service.core.store_metrics import store_errors
from agent_service.core.ttl import NEVER, TTL
from agent_service.infrastructure.database.contexts.table import KeyValueTable

__all__ = ["JoinedContexts", "TableContexts"]

MAX_KEYS: Final = 10_000
"""Most keys one call of ``keys_under`` returns."""


class TableContexts(DocumentStore):
    """What :class:`DatabaseContextStore` does with its table, whatever the transaction."""

    expires = True
    stamped_as_cache = True

    @property
    @abstractmethod
    def _table(self) -> KeyValueTable:
        """The table, on the event loop that runs."""

    async def keys_under(self, prefix: tuple[Key, ...], *, after: Key | None = None, limit: int = 1000) -> list[Any]:
        """Return the first keys that are longer tuples which begin with this one, in a fixed order.

        Read along an index, so the cost is that of the keys returned, however many others there are. In an own table
        that an earlier version made on PostgreSQL, every key is read.

        ::

            await store.keys_under(("app", "user"))  # [("app", "user", "ada"), ("app", "user", "bob", 2)]

        :param prefix: ``()`` stands for every tuple.
        :param after: the last key of the page before; None for the first page.
        :param limit: most keys, 1 to 10,000.
        :raises ContextStoreError: an argument cannot be used.
        """
        beginning = tuples_beginning(prefix)
        if not isinstance(limit, int) or isinstance(limit, bool) or not 1 <= limit <= MAX_KEYS:
            raise ContextStoreError(f"limit must be an integer from 1 to {MAX_KEYS}, got {limit!r:.80}")
        last = None if after is None else encode_key(after)
        if last is not None and not last.startswith(beginning):
            raise ContextStoreError(f"after must be a key that begins with {prefix!r:.80}, got {after!r:.80}")
        with store_errors(type(self).__name__, "list the keys of contexts"):
            texts = await self._table.keys_beginning(beginning, after=last, limit=limit)
        return [decode_key(text) for text in texts]

    async def remove_expired(self, limit: int = 1000) -> int:
        """Remove at most ``limit`` entries whose time is over, the longest first; return how many there were."""
        if not isinstance(limit, int) or isinstance(limit, bool) or limit < 1:
            raise ContextStoreError(f"limit must be an integer above 0, got {limit!r:.80}")
        with store_errors(type(self).__name__, "remove expired contexts"):
            return await self._table.remove_expired(limit)

    async def read_to_move(self, key: Key) -> tuple[Document, TTL | None] | None:
        with store_errors(type(self).__name__, "read a context"):
            found = await self._table.read_left(encode_key(key))
        if found is None:
            return None
        value, left = found
        return read_document(value.encode()), NEVER if left is None else max(left, 0.001)

    async def _read(self, texts: Collection[str]) -> Mapping[str, bytes]:
        return {text: value.encode() for text, value in (await self._table.read(texts)).items()}

    async def _write(self, documents: Mapping[str, bytes], ttl: float) -> None:
        values = {text: data.decode() for text, data in documents.items()}
        await self._table.write(values, ttl=_finite(ttl))

    async def _remove(self, texts: Collection[str]) -> int:
        return await self._table.remove(texts)

    async def _change(self, text: str, change: Change, ttl: float | None) -> None:
        def change_value(value: str | None) -> str | None:
            changed = change(None if value is None else value.encode())
            return None if changed is None else changed.decode()

        await self._table.change(text, change_value, ttl=None if ttl is None else _finite(ttl), keep=ttl is None)

    async def _texts(self) -> Iterable[str]:
        return await self._table.keys()


class JoinedContexts(TableContexts):
    """A store in the transaction of a session; :meth:`DatabaseContextStore.within` makes it.

    :param ttl: the default time to live.
    """

    def __init__(self, table: KeyValueTable, *, ttl: TTL) -> None:
        super().__init__(ttl=ttl)
        self._joined = table

    @property
    def _table(self) -> KeyValueTable:
        return self._joined


def _finite(ttl: float) -> float | None:
    return None if ttl == math.inf else ttl
