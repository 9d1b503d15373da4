"""A database of versions, and what of it no reader may see any more."""

import asyncio
import contextvars
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any

from agent_service.infrastructure.cache.base import BaseCache


class Truth:
    """The version of each key, and which versions were invalidated, and when.

    :param tolerance: seconds for which a reader may go on seeing what was invalidated.
    """

    def __init__(self, keys: Iterable[str], tolerance: float = 0.0) -> None:
        self.versions = dict.fromkeys(keys, 0)
        self._tolerance = tolerance
        self._invalidated: dict[str, list[tuple[float, int]]] = {key: [(0.0, 0)] for key in self.versions}

    def change(self, keys: Iterable[str]) -> dict[str, int]:
        """Commit new versions of these keys, and give them."""
        for key in keys:
            self.versions[key] += 1
        return {key: self.versions[key] for key in keys}

    def invalidated(self, versions: dict[str, int]) -> None:
        """Note that an invalidation of everything before these versions has returned."""
        for key, version in versions.items():
            known = self._invalidated[key]
            known.append((time.monotonic(), max(version, known[-1][1])))

    def oldest(self, key: str) -> int:
        """Return the oldest version that a read which begins now may give."""
        limit = time.monotonic() - self._tolerance
        known = self._invalidated[key]
        return max(version for moment, version in known[-100:] if moment <= limit or version == 0)


Invalidate = Callable[[BaseCache[Any], str], Awaitable[object]]

INVALIDATIONS: dict[str, Invalidate] = {
    "delete": lambda cache, key: cache.delete(key),
    "delete_many": lambda cache, key: cache.delete_many(["other", key]),
    "pattern": lambda cache, key: cache.delete_pattern(f"{key}*"),
    "tag": lambda cache, _: cache.invalidate_tags(["t"]),
    "clear": lambda cache, _: cache.clear(),
}
OF_ALL_KEYS = {"tag", "clear"}
"""Those that invalidate every key; the others only the one they are given."""

Loader = Callable[[], Awaitable[int]]
Variables = Sequence[contextvars.ContextVar[Any]]
Read = Callable[[BaseCache[Any], str, Loader, Variables], Awaitable[int | None]]


async def _among_many(cache: BaseCache[Any], key: str, load: Loader, _: Variables) -> int | None:
    async def load_many(keys: list[str]) -> dict[str, int]:
        return dict(zip(keys, await asyncio.gather(*[load() for _ in keys]), strict=True))

    found: dict[str, int] = await cache.get_or_load_many([key], load_many, tags=["t"])
    return found[key]


async def _get(cache: BaseCache[Any], key: str, _load: Loader, _: Variables) -> int | None:
    found: int | None = await cache.get(key)
    return found


def _loading(**options: Any) -> Read:
    async def read(cache: BaseCache[Any], key: str, load: Loader, seen: Variables) -> int | None:
        given: int = await cache.get_or_load(key, load, **{"tags": ["t"], "context": seen, **options})
        return given

    return read


READS: dict[str, Read] = {
    "get": _get,
    "load": _loading(),
    "tags of the result": _loading(tags=lambda _: ["t"]),
    "many": _among_many,
    "refresh": _loading(ttl=60, refresh_at=1e-6),
    "refresh tagged by result": _loading(ttl=60, refresh_at=1e-6, tags=lambda _: ["t"]),
    "stale": _loading(ttl=0.001, stale_for=60, soft_timeout=0),
    "stale on error": _loading(ttl=0.001, stale_for=60),
    "for all processes": _loading(lock="distributed"),
}
"""Each stores its entry, if it stores one, with the tag ``t``; the loader sees the variables where that can be."""
