"""Leases: what keeps a value that was loaded before an invalidation from being stored after it.

A load takes a lease on its key before it starts. Writing, deleting or invalidating the key, or invalidating a tag that
the value will have, breaks the lease, and a fill with a broken lease is refused: the invalidation always wins.

One load has a lease twice. :class:`Lease` is known to this process, in the :class:`LeaseBook` of the namespace, and is
broken at once by whatever is invalidated here. :class:`BackendLease` is the same right as the backend keeps it, so that
an invalidation by another process breaks it too; there is one class for each backend, beside it.

The book holds the leases of running loads only. It is indexed by key, so that a write costs what its own keys cost,
however many loads are running, and a truth test where none are. Threads (event loops) share a book without a lock: each
thread adds and removes in a part of its own, and others only mark what they find there as broken. Adding ends with the
part, and what the key holds in it, being put in place: a finaliser of the same thread, which may close another lease in
between, cannot leave the new one where nobody looks.
"""

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence
from threading import get_ident
from typing import Literal, Protocol, TypeAlias

from agent_service.infrastructure.cache.values import Encoded, Lifetime

__all__ = ["BackendLease", "IfHeld", "Lease", "LeaseBook"]

IfHeld: TypeAlias = Literal["share", "leave", "break"]
"""What to do with the lease of another process: load beside it, wait for it, or load in its place."""


class BackendLease(Protocol):
    """A lease as the backend knows it, so that an invalidation by another process breaks it too."""

    is_first: bool
    """Whether no other process was loading the entry when this was taken."""

    async def holds(self) -> bool:
        """Whether nobody has broken it so far."""
        ...

    async def fill(self, lease: "Lease", encoded: Encoded, life: Lifetime, tags: Sequence[str]) -> bool:
        """Store the value and end the lease; False, with nothing stored that anyone could read, when it was broken.

        :param lease: the same right in this process, which may break while the backend is asked.
        :param tags: all of the entry's tags.
        """
        ...

    async def release(self, *, tell: bool = True) -> None:
        """End it, with nothing stored unless it was filled. Calling it again does nothing.

        :param tell: False asks nothing of the backend, which then finds out when the lease is over.
        """
        ...


class Lease:
    """The right to store what is being loaded for one key, until it is broken.

    :param more_tags: whether the loaded value may bring further tags than ``tags``.
    """

    __slots__ = ("backend_lease", "broken", "key", "more_tags", "tags", "thread")

    def __init__(self, key: str, tags: Sequence[str], *, more_tags: bool) -> None:
        self.key = key
        self.tags = tags
        self.more_tags = more_tags
        self.broken = False
        self.backend_lease: BackendLease | None = None
        """The same right as the backend knows it; None until the backend was asked."""
        self.thread = get_ident()
        """Where it was taken."""


class LeaseBook:
    """The leases of one namespace in this process."""

    __slots__ = ("_open", "ended")

    def __init__(self) -> None:
        self._open: dict[int, dict[str, dict[Lease, None]]] = {}
        """By thread and key. Whatever is empty is removed."""
        self.ended = 0
        """How often a lease was broken or closed. A load whose lease was is not joined any more, and what it stored can
        be read. So if this changed during a read, a load ended meanwhile and the miss may be out of date."""

    def __len__(self) -> int:
        """How many leases are open, broken ones among them."""
        return len(list(self._leases()))

    def open(self, key: str, tags: Sequence[str] = (), *, more_tags: bool = False) -> Lease:
        """Take a lease. Whoever takes it must :meth:`end` or :meth:`close` it, in the same thread."""
        lease = Lease(key, tags, more_tags=more_tags)
        part = self._open.setdefault(lease.thread, {})
        held = part.setdefault(key, {})
        held[lease] = None
        part[key] = held
        self._open[lease.thread] = part
        return lease

    async def end(self, lease: Lease) -> None:
        """Close a lease, and end it in the backend."""
        self.close(lease)
        if lease.backend_lease is not None:
            await asyncio.shield(lease.backend_lease.release())

    def close(self, lease: Lease) -> None:
        """Close a lease in this process alone; it is broken from then on."""
        self._break(lease)
        part = self._open.get(lease.thread)
        held = None if part is None else part.get(lease.key)
        if part is None or held is None:
            return
        held.pop(lease, None)
        if not held:
            part.pop(lease.key, None)
            if not part:
                self._open.pop(lease.thread, None)

    def break_keys(self, keys: Iterable[str]) -> None:
        """Break the leases on these keys. Cost: the number of keys."""
        if self._open:
            wanted = tuple(keys)
            for part in tuple(self._open.values()):
                for key in wanted:
                    held = part.get(key)
                    if held is not None:
                        for lease in tuple(held):
                            self._break(lease)

    def break_matching(self, matches: Callable[[bytes], bool]) -> None:
        """Break the leases on the keys that match."""
        keys = {key for part in tuple(self._open.values()) for key in tuple(part)}
        self.break_keys([key for key in keys if matches(key.encode())])

    def break_tags(self, tags: Iterable[str]) -> None:
        """Break the leases on entries that will, or may, have one of these tags."""
        if self._open:
            wanted = frozenset(tags)
            for lease in self._leases():
                if lease.more_tags or not wanted.isdisjoint(lease.tags):
                    self._break(lease)

    def break_all(self) -> None:
        """Break every lease."""
        for lease in self._leases():
            self._break(lease)

    def _leases(self) -> Iterator[Lease]:
        for part in tuple(self._open.values()):
            for held in tuple(part.values()):
                yield from tuple(held)

    def _break(self, lease: Lease) -> None:
        lease.broken = True
        self.ended += 1
