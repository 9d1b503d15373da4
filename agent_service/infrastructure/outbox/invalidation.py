"""What to invalidate in one namespace: checked when it is requested, and stored as JSON."""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from math import ceil
from typing import Any, Final, Self

from agent_service.core.errors import CacheKeyError, UndecodableError
from agent_service.core.keys import check_key, normalise_namespace

__all__ = ["MAX_NAMES", "MAX_PATTERNS", "Invalidation"]

MAX_NAMES: Final = 500
"""The most keys, and the most tags, of a part: as many as one command takes."""
MAX_PATTERNS: Final = 10
"""The most patterns of a part. Earlier versions make a pass over all keys of the cache for each."""


@dataclass(frozen=True, slots=True)
class Invalidation:
    """Keys, tags and patterns of one namespace. Applying it twice does no harm."""

    namespace: str
    keys: tuple[str, ...]
    tags: tuple[str, ...]
    patterns: tuple[str, ...]

    @classmethod
    def of(cls, *, keys: Iterable[str], tags: Iterable[str], patterns: Iterable[str], namespace: str) -> Self:
        """Return an invalidation of what a caller gives.

        :raises CacheKeyError: if a cache could not use it; the message names the argument.
        """
        names = (_several(keys, "keys"), _several(tags, "tags"), _several(patterns, "patterns"))
        return cls(normalise_namespace(namespace), *names)

    def parts(self) -> list[Self]:
        """Return parts, each of which takes a bounded time. An empty invalidation has no parts."""
        count = max(
            ceil(len(self.keys) / MAX_NAMES),
            ceil(len(self.tags) / MAX_NAMES),
            ceil(len(self.patterns) / MAX_PATTERNS),
        )
        return [
            type(self)(
                self.namespace,
                self.keys[n * MAX_NAMES : (n + 1) * MAX_NAMES],
                self.tags[n * MAX_NAMES : (n + 1) * MAX_NAMES],
                self.patterns[n * MAX_PATTERNS : (n + 1) * MAX_PATTERNS],
            )
            for n in range(count)
        ]

    def to_json(self) -> str:
        """Return its JSON in ASCII, because U+0000 may be in a key but not in a column."""
        return json.dumps({name: value for name, value in asdict(self).items() if value}, separators=(",", ":"))

    @classmethod
    def from_json(cls, body: str) -> Self:
        """Return the invalidation that :meth:`to_json` wrote.

        :raises UndecodableError: if the text was not written by it.
        """
        try:
            found: Any = json.loads(body)
            return cls.of(**{"keys": (), "tags": (), "patterns": (), **found})
        except (ValueError, TypeError, RecursionError) as exc:  # a CacheKeyError is both
            raise UndecodableError(f"this is no invalidation ({type(exc).__name__})") from exc


def _several(values: Iterable[str], name: str) -> tuple[str, ...]:
    if isinstance(values, str | bytes) or not isinstance(values, Iterable):
        raise CacheKeyError(
            f"{name} must be several {name}, got {type(values).__name__}: {values!r:.80}; put it in a list"
        )
    checked = (check_key(value, name=f"{name}[{position}]") for position, value in enumerate(values))
    return tuple(dict.fromkeys(checked))
