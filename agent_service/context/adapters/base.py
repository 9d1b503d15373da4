"""What adapters share: checked keys, bulk calls, and renaming."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from typing import Any

from agent_service.context.documents import as_pairs, as_values
from agent_service.context.interface import Document, Documents, Key
from agent_service.context.keys import encode_key, is_hashable
from agent_service.context.memory import InMemoryContextStore
from agent_service.context.outside_store import as_store
from agent_service.core.errors import ContextKeyError, ContextStoreError
from agent_service.core.store_metrics import translated

__all__ = ["BaseContextAdapter"]


class BaseContextAdapter(ABC):
    """Keeps context about the parts of a data structure, each under a key that names the part.

    An adapter for another structure says what its keys look like (:meth:`normalised`), whether one names something
    that is there (:meth:`exists`), and what a rename makes of the others (:meth:`renamed`). Keys it does not know are a
    :class:`ContextKeyError`, failures of the store a :class:`ContextStoreError`. Adapters may share a store; their keys
    are then one set.

    :param data: the structure; it is neither copied nor changed, and may be replaced by setting ``data``.
    :param context_store: where contexts are kept: a store of either face, or an object that others wrote. None: a store
        in memory of its own.
    :raises ContextStoreError: for what is no store.
    """

    def __init__(self, data: Any, context_store: Any = None) -> None:
        self.data = data
        self.store = InMemoryContextStore() if context_store is None else as_store(context_store, "context_store")

    @abstractmethod
    def normalised(self, key: Any) -> Key:
        """Return a key of the form this adapter knows, made of plain Python values.

        :raises ContextKeyError: for any other form.
        """

    @abstractmethod
    def exists(self, key: Any) -> bool:
        """Whether a normalised key names a part that is there now."""

    @abstractmethod
    def renamed(self, key: Any, old: Any, new: Any) -> Key | None:
        """Return what a normalised key is called after ``old`` was renamed to ``new``; None: as before."""

    async def add_context(self, key: Key, metadata: Mapping[str, Any]) -> None:
        """Store the context of a part, in place of any other.

        :raises ContextKeyError: when there is no such part.
        """
        present = self._present(key)
        with self._errors("write a context"):
            await self.store.set(present, metadata)

    async def add_many(self, contexts: Documents) -> None:
        """Store the contexts of many parts in one call of the store; when one of them is not there, none.

        :param contexts: a mapping of keys to contexts, or pairs.
        """
        pairs = [(self._present(key), metadata) for key, metadata in as_pairs(contexts)]
        with self._errors("write contexts"):
            await self.store.set_many(as_values(pairs))

    async def update_context(self, key: Key, patch: Mapping[str, Any]) -> Document:
        """Set entries of a part's context and return the whole.

        :raises ContextKeyError: when there is no such part.
        """
        present = self._present(key)
        with self._errors("update a context"):
            return await self.store.update(present, patch)

    async def get_context(self, key: Key) -> Document | None:
        """Return the context of a part, or None; also of a part that is gone, while its context is kept.

        :raises ContextKeyError: when there is neither such a part nor such a context.
        """
        known = self._known(key)
        with self._errors("read a context"):
            found = await self.store.get(known)
        if found is None:
            self._present(known)
        return found

    async def remove_context(self, key: Key) -> None:
        """Remove the context of a part, whether or not the part is still there."""
        known = self._known(key)
        with self._errors("delete a context"):
            await self.store.delete(known)

    async def remove_many(self, keys: Iterable[Key]) -> int:
        """Remove the contexts of many parts; return how many there were."""
        known = [self._known(key) for key in keys]
        with self._errors("delete contexts"):
            return await self.store.delete_many(known)

    async def list_context_keys(self) -> list[Any]:
        """Return the keys in the store that are of this adapter's form."""
        with self._errors("list the keys of contexts"):
            keys = await self.store.list_keys()
        return [key for key in keys if self._is_known(key)]

    async def rename_key(self, old: Key, new: Key) -> int:
        """Carry context over after a part of the data was renamed, and that of what lies within it; return how many.

        The new key's own context, if there is any, is replaced. Contexts are copied and then deleted: broken off, it
        can be called again.

        :raises ContextKeyError: when ``new`` names nothing, or another kind of part than ``old``.
        """
        source, target = self._known(old), self._present(new)
        names = {key: self.renamed(key, source, target) for key in await self.list_context_keys()}
        moves = {key: name for key, name in names.items() if name is not None and name != key}
        with self._errors("rename contexts"):
            found = await self.store.get_many(moves)
            await self.store.set_many(as_values([(moves[key], context) for key, context in found.items()]))
            return await self.store.delete_many(found)

    def _errors(self, action: str) -> AbstractContextManager[None]:
        """What a store that others wrote raises is told with its name."""
        return translated(type(self.store).__name__, action)

    def _known(self, key: Any) -> Key:
        try:
            known = self.normalised(key)
            encode_key(known)
        except ContextStoreError as exc:
            raise ContextKeyError(str(exc)) from exc
        except TypeError as exc:
            if is_hashable(key):
                raise
            # An adapter may have looked it up among its own keys.
            raise ContextKeyError(f"key must be hashable, {type(key).__name__} is not: {key!r:.80}") from exc
        return known

    def _is_known(self, key: Any) -> bool:
        try:
            self._known(key)
        except ContextKeyError:
            return False
        return True

    def _present(self, key: Any) -> Key:
        known = self._known(key)
        try:
            there = self.exists(known)
        except TypeError:
            there = False
        if not there:
            raise ContextKeyError(f"the data has no {known!r:.200}; name a part that is there")
        return known
