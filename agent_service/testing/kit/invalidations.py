"""A record of what was invalidated, in the order in which it was asked for."""

from collections.abc import Callable, Iterable, Iterator
from contextvars import ContextVar
from functools import wraps
from typing import Any, Final, NamedTuple

from agent_service.infrastructure.cache.base import BaseCache

__all__ = ["Invalidation", "Invalidations"]

_KINDS: Final = {
    "delete": "key",
    "delete_many": "key",
    "delete_pattern": "pattern",
    "delete_patterns": "pattern",
    "invalidate_tags": "tag",
    "clear": "namespace",
}
_inside: Final = ContextVar("agent_service_inside_invalidation", default=False)
"""Whether one that is recorded is under way: it is made of others."""


class Invalidation(NamedTuple):
    """One key, pattern or tag of a namespace, or the whole namespace, whose ``what`` is empty."""

    namespace: str
    kind: str
    what: str


class Invalidations:
    """What the caches of this process were asked to invalidate, by whatever way: ``cache.delete()``, ``.invalidate()``
    of a decorated function, ``@cache_invalidate``, the outbox.
    """

    def __init__(self) -> None:
        self._seen: list[Invalidation] = []

    def __iter__(self) -> Iterator[Invalidation]:
        return iter(tuple(self._seen))

    def __len__(self) -> int:
        return len(self._seen)

    def __contains__(self, what: object) -> bool:
        return any(what in {each, each.what} for each in self._seen)

    def __repr__(self) -> str:
        return f"Invalidations({self._seen})"

    def clear(self) -> None:
        """Forget what was seen so far."""
        self._seen.clear()

    def watch(self, replace: Callable[[type, str, Any], None]) -> None:
        """Record from now on.

        :param replace: sets an attribute of a class and restores it later, like ``monkeypatch.setattr``.
        """
        for name, kind in _KINDS.items():
            replace(BaseCache, name, self._recording(getattr(BaseCache, name), kind))

    def _recording(self, method: Callable[..., Any], kind: str) -> Callable[..., Any]:
        @wraps(method)
        async def recording(cache: BaseCache[Any], *args: Any, **kwargs: Any) -> Any:
            if _inside.get():
                return await method(cache, *args, **kwargs)
            given: list[Any] = [*args, *kwargs.values()]
            if given and isinstance(given[0], Iterable) and not isinstance(given[0], str):
                given[0] = list(given[0])  # it may be an iterator, which can be read once
            wanted = (given[0] if isinstance(given[0], list) else given) if given else [""]
            self._seen += [Invalidation(cache.namespace, kind, each) for each in wanted]
            token = _inside.set(True)
            try:
                return await method(cache, *given)
            finally:
                _inside.reset(token)

        return recording
