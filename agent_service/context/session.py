"""The context of a session as a context store."""

from collections.abc import Iterable, Mapping
from typing import Any
from uuid import UUID

from agent_service.context.documents import as_document, as_pairs, holds, merged
from agent_service.context.interface import ContextStore, Document, Documents, Key
from agent_service.context.lifetimes import refuse_ttl
from agent_service.core.errors import ContextStoreError
from agent_service.core.store_metrics import store_errors
from agent_service.core.ttl import TTL
from agent_service.infrastructure.database.contexts.sessions import SessionContexts
from agent_service.infrastructure.database.transactions.factories import SessionFactory
from agent_service.infrastructure.database.values.validation import require_session_id, require_text

__all__ = ["SessionContextStore"]


class SessionContextStore(ContextStore):
    """Reads and writes ``sessions.context``: what a session's repository shows and this store keeps are one.

    Keys are session ids, as UUID or text, and listed as UUIDs. A session that was never given a context has an empty
    one, and deleting a context empties it. Reading an unknown session returns None and deleting it is no error; writing
    to one is refused. Values are plain JSON, and U+0000 cannot be kept.

    ::

        SessionContextStore(get_session)

    :param session_factory: returns an AsyncSession to enter: :func:`get_session`, or an ``async_sessionmaker``.
    :param tenant_id: whose sessions these are; "" is a tenant like any other.
    """

    def __init__(self, session_factory: SessionFactory, *, tenant_id: str = "") -> None:
        with store_errors(type(self).__name__, "open a store of session contexts"):
            self._tenant_id = require_text(tenant_id, "tenant_id")
            self._contexts = SessionContexts(session_factory, self._tenant_id)

    def cache_key(self, key: Key) -> Key:
        """Return the session's id, and before it the tenant, so that tenants may share a cache."""
        id_ = self._id(key)
        return (self._tenant_id, id_) if self._tenant_id else id_

    def _id(self, key: Any) -> UUID:
        if type(key) is tuple and len(key) == 2 and key[0] == self._tenant_id:
            key = key[1]
        try:
            return require_session_id(key, "key")
        except ValueError as exc:
            raise ContextStoreError(str(exc)) from exc

    async def get(self, key: Key) -> Document | None:
        id_ = self._id(key)
        with store_errors(type(self).__name__, "read a context"):
            return (await self._contexts.read([id_])).get(id_)

    async def set(self, key: Key, value: Mapping[str, Any], *, ttl: TTL | None = None) -> None:
        await self._put({self._id(key): as_document(value)}, ttl)

    async def update(self, key: Key, patch: Mapping[str, Any], *, drop_none: bool = False) -> Document:
        id_, news = self._id(key), as_document(patch, "patch")
        result: Document = {}

        def change(present: Document) -> Document:
            nonlocal result
            result = merged(present, news, drop_none=drop_none)
            return result

        with store_errors(type(self).__name__, "update a context"):
            await self._contexts.change({id_: change})
            return (await self._contexts.read([id_])).get(id_, result)

    async def delete(self, key: Key) -> None:
        await self.delete_many((key,))

    async def list_keys(self) -> list[Any]:
        with store_errors(type(self).__name__, "list the keys of contexts"):
            return list(await self._contexts.ids())

    async def get_many(self, keys: Iterable[Key]) -> dict[Any, Document]:
        ids = [(key, self._id(key)) for key in keys]
        with store_errors(type(self).__name__, "read contexts"):
            found = await self._contexts.read({id_ for _, id_ in ids})
        return {key: found[id_] for key, id_ in ids if id_ in found}

    async def set_many(self, values: Documents, *, ttl: TTL | None = None) -> None:
        await self._put({self._id(key): as_document(value) for key, value in as_pairs(values)}, ttl)

    async def delete_many(self, keys: Iterable[Key]) -> int:
        ids = {self._id(key) for key in keys}
        with store_errors(type(self).__name__, "delete contexts"):
            return await self._contexts.clear(ids)

    async def compare_and_set(
        self, key: Key, value: Mapping[str, Any], *, expected: Mapping[str, Any] | None, ttl: TTL | None = None
    ) -> bool:
        id_, document = self._id(key), as_document(value)
        wanted = None if expected is None else as_document(expected, "expected")
        refuse_ttl(ttl, "sessions have an expiry of their own")
        done = False

        def change(present: Document) -> Document | None:
            nonlocal done
            done = holds(present, wanted)
            return document if done else None

        with store_errors(type(self).__name__, "compare and set a context"):
            await self._contexts.change({id_: change})
        return done

    async def _put(self, documents: Mapping[UUID, Document], ttl: TTL | None) -> None:
        refuse_ttl(ttl, "sessions have an expiry of their own")
        with store_errors(type(self).__name__, "write contexts"):
            await self._contexts.change({id_: _replacing(each) for id_, each in documents.items()})


def _replacing(document: Document) -> Any:
    return lambda _present: document
