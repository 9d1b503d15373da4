"""What the backends share that keep a document as one piece: text keys, JSON values, one atomic change."""

import math
from abc import abstractmethod
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, Final

from agent_service.context.documents import (
    as_document,
    as_pairs,
    holds,
    merged,
    read_document,
    takes_encoded,
    write_document,
)
from agent_service.context.interface import ContextStore, Document, Documents, Key
from agent_service.context.keys import decode_key, encode_key
from agent_service.context.lifetimes import refuse_ttl, resolve_store_ttl
from agent_service.context.moving import Movable
from agent_service.core.store_metrics import store_errors
from agent_service.core.ttl import NEVER, TTL

__all__ = ["REMOVED", "Change", "DocumentStore"]

Change = Callable[[bytes | None], bytes | None]
"""Takes what is stored (None: nothing) and returns what shall be (None: leave it; :data:`REMOVED`: nothing)."""

REMOVED: Final = b""
"""In place of a document: there shall be none. No document is written like this."""


class DocumentStore(ContextStore, Movable):
    """A store over five primitives of its backend. Texts are encoded keys, bytes are whole documents.

    :param ttl: the default time to live.
    """

    def __init__(self, *, ttl: TTL = NEVER) -> None:
        self._default_ttl = resolve_store_ttl(ttl, math.inf)

    @abstractmethod
    async def _read(self, texts: Collection[str]) -> Mapping[str, bytes]:
        """Return what is there of the keys."""

    @abstractmethod
    async def _write(self, documents: Mapping[str, bytes], ttl: float) -> None:
        """Store the documents, all or none where the backend can; ``ttl`` in seconds, infinity: no expiry."""

    @abstractmethod
    async def _remove(self, texts: Collection[str]) -> int:
        """Remove the keys; return how many were there."""

    @abstractmethod
    async def _change(self, text: str, change: Change, ttl: float | None) -> None:
        """Replace a document by what ``change`` returns, atomically; ``ttl`` None: it keeps its own time to live."""

    @abstractmethod
    async def _texts(self) -> Iterable[str]:
        """Return the keys that are there."""

    async def get(self, key: Key) -> Document | None:
        text = encode_key(key)
        with store_errors(type(self).__name__, "read a context"):
            data = (await self._read((text,))).get(text)
        return None if data is None else read_document(data)

    @takes_encoded
    async def set(self, key: Key, value: Mapping[str, Any], *, ttl: TTL | None = None) -> None:
        documents = {encode_key(key): write_document(value)}
        seconds = self._default_ttl if ttl is None else self._seconds(ttl)
        with store_errors(type(self).__name__, "write contexts"):
            await self._write(documents, seconds)

    async def update(self, key: Key, patch: Mapping[str, Any], *, drop_none: bool = False) -> Document:
        text, news = encode_key(key), read_document(write_document(as_document(patch, "patch")))
        result: Document = {}

        def change(data: bytes | None) -> bytes:
            nonlocal result
            result = merged(None if data is None else read_document(data), news, drop_none=drop_none)
            return write_document(result)

        with store_errors(type(self).__name__, "update a context"):
            await self._change(text, change, None if self._default_ttl == math.inf else self._default_ttl)
        return result

    async def delete(self, key: Key) -> None:
        await self.delete_many((key,))

    async def list_keys(self) -> list[Any]:
        with store_errors(type(self).__name__, "list the keys of contexts"):
            texts = await self._texts()
        return [decode_key(text) for text in texts]

    async def get_many(self, keys: Iterable[Key]) -> dict[Any, Document]:
        wanted = [(key, encode_key(key)) for key in keys]
        with store_errors(type(self).__name__, "read contexts"):
            found = await self._read({text for _, text in wanted}) if wanted else {}
        return {key: read_document(found[text]) for key, text in wanted if text in found}

    @takes_encoded
    async def set_many(self, values: Documents, *, ttl: TTL | None = None) -> None:
        documents = {encode_key(key): write_document(value) for key, value in as_pairs(values)}
        seconds = self._seconds(ttl)
        if documents:
            with store_errors(type(self).__name__, "write contexts"):
                await self._write(documents, seconds)

    async def delete_many(self, keys: Iterable[Key]) -> int:
        texts = {encode_key(key) for key in keys}
        if not texts:
            return 0
        with store_errors(type(self).__name__, "delete contexts"):
            return await self._remove(texts)

    @takes_encoded
    async def compare_and_set(
        self, key: Key, value: Mapping[str, Any], *, expected: Mapping[str, Any] | None, ttl: TTL | None = None
    ) -> bool:
        text, data, seconds = encode_key(key), write_document(value), self._seconds(ttl)
        wanted = None if expected is None else as_document(expected, "expected")
        done = False

        def change(present: bytes | None) -> bytes | None:
            nonlocal done
            done = holds(None if present is None else read_document(present), wanted)
            return data if done else None

        with store_errors(type(self).__name__, "compare and set a context"):
            await self._change(text, change, seconds)
        return done

    async def read_to_move(self, key: Key) -> tuple[Document, TTL | None] | None:
        document = await self.get(key)
        return None if document is None else (document, NEVER)

    async def withdraw(self, key: Key, expected: Mapping[str, Any]) -> bool:
        done = False

        def change(present: bytes | None) -> bytes | None:
            nonlocal done
            done = present is not None and holds(read_document(present), expected)
            return REMOVED if done else None

        with store_errors(type(self).__name__, "withdraw a context"):
            await self._change(encode_key(key), change, None)
        return done

    def _seconds(self, ttl: TTL | None) -> float:
        if not self.expires:
            refuse_ttl(ttl, f"{type(self).__name__} cannot expire entries")
        return resolve_store_ttl(ttl, self._default_ttl)
