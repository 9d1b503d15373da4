"""The synchronous face of a context store, for code in threads and for scripts."""

from collections.abc import Coroutine, Hashable, Iterable, Mapping
from typing import Any, Final, Self, TypeVar

from agent_service.context.outside.calls import OutsideCalls, derived
from agent_service.core.bridge import SyncBridge
from agent_service.core.calling_thread import calling_thread
from agent_service.core.errors import BridgeError, ContextStoreError
from agent_service.core.store_metrics import translated
from agent_service.core.ttl import TTL

__all__ = ["SyncContextStore", "run_immediately"]

T = TypeVar("T")

_BRIDGE: Final = SyncBridge()
"""Where stores run that are called synchronously: one loop of the process, in a thread of its own."""


def run_immediately(call: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that never waits, without an event loop."""
    try:
        call.send(None)
    except StopIteration as done:
        return done.value  # type: ignore[no-any-return]
    call.close()
    raise ContextStoreError("a store that claims never to wait has waited")


def _run_on_bridge(call: Coroutine[Any, Any, T]) -> T:
    try:
        with calling_thread() as caller:
            # No limit for the whole: every operation of a backend has its own, and some calls are many operations.
            return _BRIDGE.run(call, None, caller=caller)
    except BridgeError as exc:
        raise ContextStoreError(f"could not call a context store synchronously: {exc}") from exc


class SyncContextStore:
    """Calls a store and waits: the methods of :class:`~agent_service.context.interface.ContextStore` without ``await``.

    A call takes about 40 microseconds more, and runs on a loop of the process's own with connections of its own; a
    store over a client or engine that was given must be used through this face alone. Plain methods of a store that
    others wrote run in the calling thread. On the thread of a running event loop a call raises at once, because it
    would stop that loop. A store in memory has none of these limits. A call takes as long as the store takes.

    It is also the interface for a synchronous store of your own: a subclass that writes ``get``, ``set``, ``delete``
    and ``list_keys`` as plain methods has the other calls, derived from these.

    :param store: the store below, also to be had as ``store``; or one that others wrote.
    """

    _store: Any = None

    def __init__(self, store: Any) -> None:
        self._store = store if hasattr(store, "never_waits") else OutsideCalls(store)

    @property
    def store(self) -> Any:
        """The awaited store below."""
        if self._store is None:  # a subclass with methods of its own
            self._store = OutsideCalls(self)
        return self._store

    def run(self, call: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine where the store's own calls run."""
        return run_immediately(call) if self.store.never_waits else _run_on_bridge(call)

    def _call(self, action: str, call: Coroutine[Any, Any, T]) -> T:
        with translated(type(self.store).__name__, action):
            return self.run(call)

    @derived
    def get(self, key: Hashable) -> dict[str, Any] | None:
        """Return what is stored under the key, or None."""
        return self._call("read a context", self.store.get(key))  # type: ignore[no-any-return]

    @derived
    def set(self, key: Hashable, value: Mapping[str, Any], *, ttl: TTL | None = None) -> None:
        """Store a value, in place of any other."""
        self._call("write a context", self.store.set(key, value, ttl=ttl))

    @derived
    def update(self, key: Hashable, patch: Mapping[str, Any], *, drop_none: bool = False) -> dict[str, Any]:
        """Set the patch's top-level entries atomically and return the whole that results."""
        return self._call("update a context", self.store.update(key, patch, drop_none=drop_none))

    @derived
    def delete(self, key: Hashable) -> None:
        """Remove what is stored under the key."""
        self._call("delete a context", self.store.delete(key))

    @derived
    def list_keys(self) -> list[Any]:
        """Return every key that holds a value."""
        return self._call("list the keys of contexts", self.store.list_keys())

    @derived
    def get_many(self, keys: Iterable[Hashable]) -> dict[Any, dict[str, Any]]:
        """Return what is stored under those keys that hold something."""
        return self._call("read contexts", self.store.get_many(keys))

    @derived
    def set_many(
        self,
        values: Mapping[Any, Mapping[str, Any]] | Iterable[tuple[Any, Mapping[str, Any]]],
        *,
        ttl: TTL | None = None,
    ) -> None:
        """Store values, of a mapping or of pairs; when one of them is unusable, none."""
        self._call("write contexts", self.store.set_many(values, ttl=ttl))

    @derived
    def delete_many(self, keys: Iterable[Hashable]) -> int:
        """Remove what is stored under the keys; return how many held something."""
        return self._call("delete contexts", self.store.delete_many(keys))  # type: ignore[no-any-return]

    @derived
    def compare_and_set(
        self,
        key: Hashable,
        value: Mapping[str, Any],
        *,
        expected: Mapping[str, Any] | None,
        ttl: TTL | None = None,
    ) -> bool:
        """Store a value in place of the present one if that is as expected; return whether it was."""
        return self._call(  # type: ignore[no-any-return]
            "compare and set a context", self.store.compare_and_set(key, value, expected=expected, ttl=ttl)
        )

    def close(self) -> None:
        """Close what the store opened itself."""
        self._call("close a store", self.store.aclose())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
