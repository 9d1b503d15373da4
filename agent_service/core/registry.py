"""Classes that come back from the codec as themselves, because the application registered them under a name."""

from collections.abc import Callable
from dataclasses import fields, is_dataclass
from enum import Enum
from typing import Any, NamedTuple, TypeVar

from pydantic import BaseModel, RootModel

from agent_service.core.errors import CacheValueError, UndecodableError
from agent_service.core.standard_types import NotWritable
from agent_service.core.typed import restorer

__all__ = ["BY_CLASS", "BY_NAME", "RegisteredType", "plain_data", "register_type"]

T = TypeVar("T")


class RegisteredType(NamedTuple):
    """A class, the name it has in stored bytes, and how it becomes data and a value again."""

    name: str
    cls: type
    dump: Callable[[Any], Any]
    load: Callable[[Any], Any]


BY_CLASS: dict[type, RegisteredType] = {}
BY_NAME: dict[str, RegisteredType] = {}

_BUILT_IN = {"builtins", "datetime", "decimal", "uuid"}


def register_type(
    cls: type[T],
    *,
    name: str | None = None,
    dump: Callable[[T], Any] | None = None,
    load: Callable[[Any], T] | None = None,
) -> type[T]:
    """Let values of exactly this class come back as this class. Register in every process that reads the entries.

    :param name: what stored bytes call the class, by default its module and qualified name. Keep it if the class moves.
    :param dump: gives what the codec shall write in its place; may return anything the codec takes.
    :param load: makes the value of what ``dump`` returned. Both may be left out for a dataclass, pydantic model, Enum
        or NamedTuple, which are then written by their fields or value.
    :returns: the class, so that this also works as a decorator.
    :raises CacheValueError: for a class that needs ``dump`` and ``load``, one the codec knows by itself, or a name that
        another class has.
    """
    if not isinstance(cls, type):
        raise CacheValueError(f"cls must be a class, not {type(cls).__name__}: {cls!r:.80}")
    if cls.__module__ in _BUILT_IN:
        raise CacheValueError(f"cls is {cls.__qualname__}, which needs no registration")
    if (dump is None) is not (load is None):
        raise CacheValueError(f"dump and load of {cls.__qualname__} belong together; give both or neither")
    if dump is None or load is None:
        if not _has_plain_data(cls):
            raise CacheValueError(
                f"cls is {cls.__qualname__}, no dataclass, pydantic model, Enum or NamedTuple; give dump and load"
            )
        dump, load = plain_data, _rebuilder(cls)
    key = name or f"{cls.__module__}.{cls.__qualname__}"
    holder = BY_NAME.get(key)
    if holder is not None and _full_name(holder.cls) != _full_name(cls):
        raise CacheValueError(f"name {key!r} already belongs to {_full_name(holder.cls)}; give another name")
    BY_CLASS[cls] = BY_NAME[key] = RegisteredType(key, cls, dump, load)
    return cls


def _full_name(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


def _has_plain_data(cls: type) -> bool:
    return (
        issubclass(cls, Enum | BaseModel) or is_dataclass(cls) or (issubclass(cls, tuple) and hasattr(cls, "_fields"))
    )


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


def plain_data(value: Any) -> Any:
    """Give what stands for a dataclass, pydantic model, Enum member or NamedTuple; its members stay what they are.

    :raises NotWritable: for anything else.
    """
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, BaseModel):
        if isinstance(value, RootModel):
            return value.root
        state, extra = value.__dict__, value.__pydantic_extra__
        return {name: state[name] for name in type(value).model_fields if name in state} | (extra or {})
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in fields(value)}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return tuple(value)
    kind = type(value)
    raise NotWritable(
        f"it is a {kind.__module__}.{kind.__qualname__}, which the codec does not know; "
        f"convert it to plain data or call register_type({kind.__qualname__}, dump=..., load=...)"
    )
