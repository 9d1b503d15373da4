"""The context store contract, stated as obligations that every backend keeps."""

from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterable, Mapping
from typing import Any, Self

from agent_service.context.documents import Document, Documents
from agent_service.context.keys import Key
from agent_service.context.outside.calls import OutsideCalls, derived
from agent_service.context.sync_store import SyncContextStore
from agent_service.core.ttl import TTL

__all__ = ["ContextStore", "Document", "Documents", "Key"]


class ContextStore(ABC):
    """A mapping from keys to dictionaries, the same on every backend.

    * **Absence** is None, never an error; deleting what is not there is no error. An empty dictionary is a value.
    * **Keys** are text or any hashable value that :mod:`agent_service.context.keys` can write down, tuples included.
      They are told apart by type: ``1``, ``"1"``, ``True`` and ``("1",)`` are four keys. :meth:`list_keys` returns
      what was used as a key.
    * **Values** are mappings whose own keys are text. What they hold comes back equal, types of the standard library
      included (:mod:`agent_service.core.codec`); unregistered dataclasses, models and Enum members become plain data.
    * **No aliasing.** Changing a value after storing it, or a value that was read, changes nothing in the store.
    * **Atomicity.** Each method happens as a whole or not at all. Any number of concurrent :meth:`update` calls of one
      key lose nothing, from several processes too where the backend is shared. A bulk call is one transaction where the
      backend has them.
    * **Order.** An operation that begins after another has returned sees its effect.
    * **Time to live.** None is the store's default, which is :data:`NEVER` unless given. Backends that cannot expire
      refuse any other.
    * **Errors.** Every failure is a :class:`~agent_service.core.errors.ContextStoreError` with its cause chained:
      misuse, before anything is changed, and failures of the backend.

    A store of your own needs :meth:`get`, :meth:`set`, :meth:`delete` and :meth:`list_keys`; the other calls are then
    derived from these (:class:`~agent_service.context.outside.calls.OutsideCalls`), atomic within this process only.
    Every store of this package writes its own.
    """

    expires: bool = False
    """Whether this store can expire entries."""

    stamped_as_cache: bool = False
    """Whether a cache made of this store keeps the end of each entry in the entry, although the store can expire it:
    because earlier versions, which could not, left such entries."""

    place: Hashable = None
    """Where the data is, equal for all objects over the same data; None: that cannot be told. May hold a password."""

    never_waits: bool = False
    """Whether its methods never wait for anything, so that they can be run without an event loop."""

    def cache_key(self, key: Key) -> Key:
        """Return the key, which this store takes as well, under which a cache before this store keeps what it holds.

        One for all keys that mean the same here, and never one that means something else in a store beside this one
        over the same data.
        """
        return key

    @property
    def sync(self) -> SyncContextStore:
        """The same store without ``await``, for code in threads."""
        return SyncContextStore(self)

    @abstractmethod
    async def get(self, key: Key) -> Document | None:
        """Return what is stored under the key, or None."""

    @abstractmethod
    async def set(self, key: Key, value: Mapping[str, Any], *, ttl: TTL | None = None) -> None:
        """Store a value, in place of any other.

        :param ttl: seconds or a timedelta above 0, or NEVER; None: the store's default.
        """

    @abstractmethod
    async def delete(self, key: Key) -> None:
        """Remove what is stored under the key."""

    @abstractmethod
    async def list_keys(self) -> list[Any]:
        """Return every key that holds a value, each once, in no order. Cost grows with the store."""

    @derived
    async def update(self, key: Key, patch: Mapping[str, Any], *, drop_none: bool = False) -> Document:
        """Set the patch's top-level entries atomically and return the whole that results.

        A missing key starts empty. A default time to live of the store starts again; without one a key keeps its own.

        :param drop_none: ignore entries of the patch that are None, instead of storing None.
        """
        return await OutsideCalls(self).update(key, patch, drop_none=drop_none)

    @derived
    async def get_many(self, keys: Iterable[Key]) -> dict[Any, Document]:
        """Return what is stored under those keys that hold something. Keys that Python holds equal share an entry."""
        return await OutsideCalls(self).get_many(keys)

    @derived
    async def set_many(self, values: Documents, *, ttl: TTL | None = None) -> None:
        """Store values; when one of them is unusable, none.

        :param values: a mapping of keys to values, or pairs.
        """
        await OutsideCalls(self).set_many(values, ttl=ttl)

    @derived
    async def delete_many(self, keys: Iterable[Key]) -> int:
        """Remove what is stored under the keys; return how many held something."""
        return await OutsideCalls(self).delete_many(keys)

    @derived
    async def compare_and_set(
        self, key: Key, value: Mapping[str, Any], *, expected: Mapping[str, Any] | None, ttl: TTL | None = None
    ) -> bool:
        """Store a value in place of the present one if that is as expected, atomically; return whether it was.

        ::

            await store.compare_and_set(key, {**seen, "version": 4}, expected={"version": 3})

        :param expected: entries that the present value must have among its own, compared as they are written (so 1 and
            1.0 differ); ``{}``: any value will do; None: the key must hold nothing.
        """
        return await OutsideCalls(self).compare_and_set(key, value, expected=expected, ttl=ttl)

    @derived  # noqa: B027 - a store that opened nothing has nothing to close
    async def aclose(self) -> None:
        """Close what this store opened itself; what it was given stays open. Calling it again does nothing."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()
