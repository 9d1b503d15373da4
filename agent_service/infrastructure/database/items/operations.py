"""What a caller asks of the items of a tenant, checked before anything is sent."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal, TypeAlias

from agent_service.core.errors import SessionValueError
from agent_service.infrastructure.database.items.places import Namespace, require_key, write_namespace
from agent_service.infrastructure.database.items.texts import strings_in, words_of
from agent_service.infrastructure.database.values.conditions import Condition, read_filter
from agent_service.infrastructure.database.values.documents import encode_document
from agent_service.infrastructure.database.values.validation import require_count

__all__ = ["MAX_LIMIT", "Get", "Item", "ListNamespaces", "Operation", "Put", "Result", "Search", "Vectors"]

MAX_LIMIT: Final = 10_000
"""Most items or namespaces that one operation returns."""
_MAX_OFFSET: Final = 2**31 - 1
_MAX_TTL: Final = 100 * 366 * 86_400.0

Vectors: TypeAlias = tuple[tuple[str, list[float]], ...]
"""The embedded texts of an item: names of their places, each once, with their vectors."""


@dataclass(frozen=True, slots=True)
class Item:
    """An item as it is stored. ``score`` tells how well a search's query found it; None: there was none, or not."""

    namespace: Namespace
    key: str
    value: dict[str, Any]
    created_at: datetime
    updated_at: datetime
    score: float | None = None


@dataclass(frozen=True, slots=True)
class Get:
    """Read an item. ``refresh``: if it has a time to live, that begins again."""

    namespace: str
    key: str
    refresh: bool

    @classmethod
    def of(cls, namespace: Any, key: Any, *, refresh: bool) -> "Get":
        """Return the operation.

        :raises SessionValueError: an argument cannot be used.
        """
        return cls(write_namespace(namespace), require_key(key), refresh)


@dataclass(frozen=True, slots=True)
class Put:
    """Store an item in place of what is there, or remove it.

    :param value: a JSON object as text; None removes the item.
    :param content: what searches by text look through; None: nothing.
    :param ttl: seconds that it lives from now on, and from each read that refreshes it; None: it does not expire.
    """

    namespace: str
    key: str
    value: str | None
    content: str | None = None
    ttl: float | None = None
    vectors: Vectors = ()

    @classmethod
    def of(
        cls,
        namespace: Any,
        key: Any,
        value: Any,
        *,
        texts: Iterable[str] | None = None,
        ttl: Any = None,
        vectors: Vectors = (),
    ) -> "Put":
        """Return the operation.

        :param texts: what searches by text look through; None: every text of the value.
        :raises SessionValueError: an argument cannot be used; the value must be JSON, and come back as it is.
        """
        place, name = write_namespace(namespace), require_key(key)
        if not place:
            raise SessionValueError("namespace is empty; an item needs one of at least one label")
        if value is None:
            return cls(place, name, None)
        if isinstance(value, Mapping) and not isinstance(value, dict):
            value = dict(value)
        text, document = encode_document(value, "value", nul=False)
        content = "\n".join(strings_in(document) if texts is None else texts).replace("\x00", "")
        return cls(place, name, text, content or None, _require_ttl(ttl), vectors)


@dataclass(frozen=True, slots=True)
class Search:
    """Find items in a namespace and below it: with ``words`` or a ``vector`` the best first, else the latest first."""

    prefix: str
    conditions: tuple[Condition, ...]
    words: tuple[str, ...]
    limit: int
    offset: int
    refresh: bool
    vector: tuple[float, ...] | None = None

    @classmethod
    def of(
        cls,
        prefix: Any,
        *,
        filter: Any = None,
        query: str | None = None,
        vector: Iterable[float] | None = None,
        limit: Any = 10,
        offset: Any = 0,
        refresh: bool = True,
    ) -> "Search":
        """Return the operation.

        :param query: words to look for, unless there is a vector.
        :raises SessionValueError: an argument cannot be used.
        """
        return cls(
            write_namespace(prefix, "namespace_prefix"),
            tuple(read_filter(filter)) if filter else (),
            tuple(words_of(query)) if query and vector is None else (),
            require_count(limit, "limit", least=0, most=MAX_LIMIT),
            require_count(offset, "offset", least=0, most=_MAX_OFFSET),
            refresh,
            None if vector is None else tuple(vector),
        )


Match: TypeAlias = tuple[Literal["prefix", "suffix"], Namespace]
"""Where labels stand in a namespace, and which; ``*`` is any label."""


@dataclass(frozen=True, slots=True)
class ListNamespaces:
    """List the namespaces that hold items, in the order of their labels, cut at ``max_depth``, each once."""

    matches: tuple[Match, ...]
    max_depth: int | None
    limit: int
    offset: int

    @classmethod
    def of(
        cls, matches: Iterable[tuple[Any, Any]] = (), *, max_depth: Any = None, limit: Any = 100, offset: Any = 0
    ) -> "ListNamespaces":
        """Return the operation.

        :raises SessionValueError: an argument cannot be used.
        """
        checked: list[Match] = []
        for kind, path in matches:
            if kind not in {"prefix", "suffix"}:
                raise SessionValueError(f"a match must be of a prefix or a suffix, got {kind!r:.80}")
            write_namespace(path, kind)
            checked.append((kind, tuple(path)))
        return cls(
            tuple(checked),
            None if max_depth is None else require_count(max_depth, "max_depth", most=MAX_LIMIT),
            require_count(limit, "limit", least=0, most=MAX_LIMIT),
            require_count(offset, "offset", least=0, most=_MAX_OFFSET),
        )

    def shows(self, namespace: Namespace) -> bool:
        """Whether a namespace fits every match."""
        return all(_fits(kind, path, namespace) for kind, path in self.matches)


Operation: TypeAlias = Get | Put | Search | ListNamespaces
Result: TypeAlias = Item | list[Item] | list[Namespace] | None


def _fits(kind: str, path: Namespace, namespace: Namespace) -> bool:
    if len(path) > len(namespace):
        return False
    part = namespace[: len(path)] if kind == "prefix" else namespace[len(namespace) - len(path) :]
    return all(wanted in ("*", label) for wanted, label in zip(path, part, strict=True))


def _require_ttl(ttl: Any) -> float | None:
    if ttl is None:
        return None
    if isinstance(ttl, bool) or not isinstance(ttl, int | float) or not 0 < ttl <= _MAX_TTL or math.isnan(ttl):
        raise SessionValueError(f"ttl must be more than 0 and at most 100 years, or None, got {ttl!r:.80} seconds")
    return float(ttl)
