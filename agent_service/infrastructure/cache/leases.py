"""Leases: what keeps a value that was loaded before an invalidation from being stored after it.

A load takes a lease on its key before it starts. Writing, deleting or invalidating the key, or invalidating a tag that
the value will have, breaks the lease, and a fill with a broken lease is refused: the invalidation always wins. The book
holds running loads only, so it is as small as they are few, and an operation on a cache that loads nothing pays one
truth test.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Literal, Protocol, TypeAlias

from agent_service.infrastructure.cache.values import Encoded, Lifetime

__all__ = ["Grant", "Lease", "LeaseBook", "Standing"]

Standing: TypeAlias = Literal["share", "leave", "break"]
"""What to do with the lease of another process: load beside it, wait for it, or load in its place."""


class Grant(Protocol):
    """A lease as the backend knows it, so that an invalidation by another process breaks it too."""

    is_first: bool
    """Whether no other process was loading the entry when this was granted."""

    async def stands(self) -> bool:
        """Whether nobody has broken it so far."""
        ...

    async def fill(self, lease: "Lease", encoded: Encoded, life: Lifetime, tags: Sequence[str]) -> bool:
        """Store the value and end the grant; False, with nothing stored that anyone could read, when it was broken.

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

    __slots__ = ("broken", "grant", "key", "more_tags", "tags")

    def __init__(self, key: str, tags: Sequence[str], *, more_tags: bool) -> None:
        self.key = key
        self.tags = tags
        self.more_tags = more_tags
        self.broken = False
        self.grant: Grant | None = None
        """The same right as the backend knows it; None until the backend was asked."""


class LeaseBook:
    """The leases of one namespace in this process. Every method is atomic under the interpreter's own lock."""

    __slots__ = ("_open", "ended")

    def __init__(self) -> None:
        self._open: dict[Lease, None] = {}
        self.ended = 0
        """How many leases were closed. Nobody joins a load whose lease was, and what it stored can be read: a caller
        who counts before and after he reads knows whether his miss may be out of date."""

    def __len__(self) -> int:
        return len(self._open)

    def open(self, key: str, tags: Sequence[str] = (), *, more_tags: bool = False) -> Lease:
        """Take a lease. Whoever takes it must :meth:`close` it."""
        lease = Lease(key, tags, more_tags=more_tags)
        self._open[lease] = None
        return lease

    def close(self, lease: Lease) -> None:
        """Close a lease; it is broken from then on."""
        lease.broken = True
        self._open.pop(lease, None)
        self.ended += 1

    def break_keys(self, keys: Iterable[str]) -> None:
        """Break the leases on these keys."""
        if self._open:
            wanted = frozenset(keys)
            self._break(lambda lease: lease.key in wanted)

    def break_matching(self, matches: Callable[[bytes], bool]) -> None:
        """Break the leases on the keys that match."""
        if self._open:
            self._break(lambda lease: matches(lease.key.encode()))

    def break_tags(self, tags: Iterable[str]) -> None:
        """Break the leases on entries that will, or may, have one of these tags."""
        if self._open:
            wanted = frozenset(tags)
            self._break(lambda lease: lease.more_tags or not wanted.isdisjoint(lease.tags))

    def break_all(self) -> None:
        """Break every lease."""
        self._break(lambda _lease: True)

    def _break(self, wanted: Callable[[Lease], bool]) -> None:
        for lease in tuple(self._open):
            if wanted(lease):
                self.close(lease)
