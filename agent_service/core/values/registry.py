"""Classes that the codec restores as themselves, because the application registered them under a name."""

from collections.abc import Callable
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from types import NoneType
from typing import Any, NamedTuple, TypeVar
from uuid import UUID

from agent_service.core.errors import CacheValueError, UndecodableError
from agent_service.core.values.instances import is_record, plain_data
from agent_service.core.values.known import KnownClasses
from agent_service.core.values.typed import restorer

__all__ = ["BY_CLASS", "BY_NAME", "RegisteredType", "register_type"]

T = TypeVar("T")


class RegisteredType(NamedTuple):
    """A class, its name in stored bytes, and how its values become data and values again."""

    name: str
    cls: type
    dump: Callable[[Any], Any]
    load: Callable[[Any], Any]
    known: KnownClasses
    """The classes that its data may hold."""

    @property
    def is_record(self) -> bool:
        """Whether values are written and restored by their fields."""
        return self.dump is plain_data


BY_CLASS: dict[type, RegisteredType] = {}
BY_NAME: dict[str, RegisteredType] = {}

_KNOWN = {
    *(bool, int, float, complex, str, bytes, bytearray, NoneType, dict, list, tuple, set, frozenset),
    *(datetime, date, time, timedelta, Decimal, UUID),
}


def register_type(
    cls: type[T],
    *,
    name: str | None = None,
    dump: Callable[[T], Any] | None = None,
    load: Callable[[Any], T] | None = None,
) -> type[T]:
    """Make values of exactly this class come back as this class. Register in every process that reads the entries.

    :param name: the class's name in stored bytes, by default its module and qualified name. Keep it if the class moves.
    :param dump: returns what to write for a value; anything that the codec takes.
    :param load: makes the value of what ``dump`` returned. Both may be left out for a dataclass, pydantic model, Enum
        or NamedTuple, which are then written by their fields or value.
    :returns: the class, so that this also works as a decorator.
    :raises CacheValueError: if the class needs ``dump`` and ``load``, the codec knows it already, or another class has
        the name.
    """
    if not isinstance(cls, type):
        raise CacheValueError(f"cls must be a class, not {type(cls).__name__}: {cls!r:.80}")
    if cls in _KNOWN:
        raise CacheValueError(f"cls is {cls.__qualname__}, which needs no registration")
    if (dump is None) is not (load is None):
        raise CacheValueError(f"dump and load of {cls.__qualname__} belong together; give both or neither")
    if dump is None or load is None:
        if not is_record(cls):
            raise CacheValueError(
                f"cls is {cls.__qualname__}, no dataclass, pydantic model, Enum or NamedTuple; give dump and load"
            )
        dump, load = plain_data, _rebuilder(cls)
    key = name or f"{cls.__module__}.{cls.__qualname__}"
    holder = BY_NAME.get(key)
    if holder is not None and _full_name(holder.cls) != _full_name(cls):
        raise CacheValueError(f"name {key!r} already belongs to {_full_name(holder.cls)}; give another name")
    BY_CLASS[cls] = BY_NAME[key] = RegisteredType(key, cls, dump, load, KnownClasses(cls))
    return cls


def _full_name(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


def _rebuilder(cls: type) -> Callable[[Any], Any]:
    """Rebuild by the class's own annotations, read at the first use because they may name classes not yet defined."""
    found: list[Callable[[Any], Any]] = []

    def load(data: Any) -> Any:
        if not found:
            rebuild = restorer(cls)
            if rebuild is None:
                raise UndecodableError(f"the annotations of {cls.__qualname__} cannot be read; register dump and load")
            found.append(rebuild)
        return found[0](data)

    return load
