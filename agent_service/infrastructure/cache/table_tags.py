"""Tags of entries in memory: a token for each tag, shared by the entries that carry it.

Invalidating a tag kills its token, whatever the number of entries: an entry is valid while all its tokens live. A token
is referred to by its entries only, so that a tag nobody carries any more takes no room.
"""

import threading
from collections.abc import Iterable
from weakref import WeakValueDictionary

__all__ = ["TagTable", "Token"]


class Token:
    """A tag, from when an entry first carries it until it is invalidated."""

    __slots__ = ("__weakref__", "dead")

    def __init__(self) -> None:
        self.dead = False


class TagTable:
    """The living tokens of one namespace, by tag. Safe to use from several threads."""

    def __init__(self) -> None:
        self._tokens: WeakValueDictionary[str, Token] = WeakValueDictionary()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        """How many tags there are."""
        return len(self._tokens)

    def take(self, tags: Iterable[str]) -> tuple[Token, ...]:
        """Return the token of each tag. It is dead once its tag was invalidated."""
        with self._lock:
            return tuple([self._tokens.setdefault(tag, Token()) for tag in tags])

    def invalidate(self, tags: Iterable[str]) -> None:
        """Kill the token of each tag. Cost: as many steps as there are tags, however many entries carry them."""
        with self._lock:
            for tag in tags:
                token = self._tokens.pop(tag, None)
                if token is not None:
                    token.dead = True
