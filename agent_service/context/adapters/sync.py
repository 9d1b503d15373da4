"""Adapters without ``await``, over stores without ``await``."""

from abc import ABC
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from agent_service.context.adapters import base, pandas
from agent_service.context.interface import Document, Documents, Key

__all__ = ["BaseContextAdapter", "PandasContextAdapter"]


class BaseContextAdapter(ABC):
    """The methods of :class:`agent_service.context.adapters.BaseContextAdapter` without ``await``.

    A subclass names in ``awaited`` the adapter it calls.
    """

    awaited: ClassVar[type[base.BaseContextAdapter]]

    def __init__(self, data: Any, context_store: Any = None) -> None:
        self._adapter = self.awaited(data, context_store)
        self._run = self._adapter.store.sync.run

    @property
    def data(self) -> Any:
        """The structure, to be replaced when it is."""
        return self._adapter.data

    @data.setter
    def data(self, data: Any) -> None:
        self._adapter.data = data

    def add_context(self, key: Key, metadata: Mapping[str, Any]) -> None:
        """Store the context of a part, in place of any other."""
        self._run(self._adapter.add_context(key, metadata))

    def add_many(self, contexts: Documents) -> None:
        """Store the contexts of many parts in one call of the store."""
        self._run(self._adapter.add_many(contexts))

    def update_context(self, key: Key, patch: Mapping[str, Any]) -> Document:
        """Set entries of a part's context and return the whole."""
        return self._run(self._adapter.update_context(key, patch))

    def get_context(self, key: Key) -> Document | None:
        """Return the context of a part, or None."""
        return self._run(self._adapter.get_context(key))

    def remove_context(self, key: Key) -> None:
        """Remove the context of a part, whether or not the part is still there."""
        self._run(self._adapter.remove_context(key))

    def remove_many(self, keys: Iterable[Key]) -> int:
        """Remove the contexts of many parts; return how many there were."""
        return self._run(self._adapter.remove_many(keys))

    def list_context_keys(self) -> list[Any]:
        """Return the keys in the store that are of this adapter's form."""
        return self._run(self._adapter.list_context_keys())

    def rename_key(self, old: Key, new: Key) -> int:
        """Carry context over after a part of the data was renamed; return how many contexts."""
        return self._run(self._adapter.rename_key(old, new))


class PandasContextAdapter(BaseContextAdapter):
    """:class:`agent_service.context.PandasContextAdapter` without ``await``."""

    awaited = pandas.PandasContextAdapter
