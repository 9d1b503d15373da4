"""Objects of this process as long as somebody else keeps them."""

import weakref
from typing import Generic, TypeVar

__all__ = ["Living"]

T = TypeVar("T")


class Living(Generic[T]):
    """Weak references. Any thread may add, remove and look, which a WeakSet does not allow."""

    def __init__(self) -> None:
        self._references: dict[int, weakref.ref[T]] = {}

    def add(self, item: T) -> None:
        """Hold an object until it is collected or removed."""
        key = id(item)
        references = self._references
        references[key] = weakref.ref(item, lambda gone: _forget(references, key, gone))

    def discard(self, item: T) -> None:
        """Hold an object no longer."""
        self._references.pop(id(item), None)

    def all(self) -> list[T]:
        """Return the objects that live, the first added first."""
        return [item for reference in list(self._references.values()) if (item := reference()) is not None]


def _forget(references: "dict[int, weakref.ref[T]]", key: int, gone: "weakref.ref[T]") -> None:
    if references.get(key) is gone:  # another object may have the id by now
        del references[key]
