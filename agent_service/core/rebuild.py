"""What :mod:`.typed` composes: each function rebuilds one kind of type from plain data and changes nothing it is given.

All raise :class:`~agent_service.core.errors.UndecodableError` for data that does not fit. Data that was rebuilt before,
because its class is registered with the codec, passes through.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from enum import Enum
from typing import Any, TypeAlias

from pydantic import BaseModel, RootModel

from agent_service.core.errors import UndecodableError

Rebuild: TypeAlias = Callable[[Any], Any]
_COLLECTIONS = frozenset({list, tuple, set, frozenset})
_MISSING = object()


class Pending:
    """Stands for a record that is being compiled, inside its own fields."""

    rebuild: Rebuild | None

    def __call__(self, data: Any) -> Any:
        """Rebuild as the record does, once it is compiled."""
        return self.rebuild(data) if self.rebuild else data


def unchanged(data: Any) -> Any:
    """Give the data back."""
    return data


def _require(fits: bool, expected: str, data: Any) -> None:
    if not fits:
        raise UndecodableError(f"stored data of type {type(data).__name__} does not fit {expected}")


def enum_member(cls: type[Enum], data: Any) -> Any:
    """Find the member by its value; a value that only ``_missing_`` would accept does not fit."""
    if type(data) is cls:
        return data
    try:
        member = cls(data)
    except Exception as exc:  # _missing_ is the caller's code
        raise UndecodableError(f"stored data is no value of {cls.__qualname__}") from exc
    _require(member.value == data, cls.__qualname__, data)
    return member


def literal(choices: Mapping[Any, Any], data: Any) -> Any:
    """Find a Literal's choice by what stands for it in plain data: its value for an Enum member, else itself."""
    try:
        return choices[data]
    except (KeyError, TypeError) as exc:
        raise UndecodableError("stored data is no choice of a Literal") from exc


def _rebuilt(changing: Mapping[str, Rebuild], data: Mapping[str, Any]) -> dict[str, Any]:
    return {name: changing[name](value) if name in changing else value for name, value in data.items()}


def dataclass(cls: type, init: Mapping[str, bool], changing: Mapping[str, Rebuild], data: Any) -> Any:
    """Call the class with its fields, then set what ``__post_init__`` left different from what was stored."""
    if isinstance(data, cls):
        return data
    _require(type(data) is dict and data.keys() == init.keys(), cls.__qualname__, data)
    values = _rebuilt(changing, data)
    try:
        built = cls(**{name: value for name, value in values.items() if init[name]})
        for name, value in values.items():
            if getattr(built, name, _MISSING) is not value:
                object.__setattr__(built, name, value)  # past a frozen class
    except Exception as exc:  # __init__ is the caller's code
        raise UndecodableError(f"stored data does not make a {cls.__qualname__}: {type(exc).__name__}") from exc
    return built


def model(cls: type[BaseModel], changing: Mapping[str, Rebuild], data: Any) -> Any:
    """Validate by field name, never by alias."""
    if isinstance(data, cls):
        return data
    if issubclass(cls, RootModel):
        values = changing["root"](data) if "root" in changing else data
    else:
        names = cls.model_fields.keys()
        more_is_fine = cls.model_config.get("extra") == "allow"
        fits = type(data) is dict and (data.keys() == names or (more_is_fine and data.keys() >= names))
        _require(fits, cls.__qualname__, data)
        values = _rebuilt(changing, data)
    try:
        return cls.model_validate(values, by_alias=False, by_name=True)
    except Exception as exc:  # validators are the caller's code
        raise UndecodableError(f"stored data does not make a {cls.__qualname__}: {type(exc).__name__}") from exc


def named_tuple(cls: Any, changing: Mapping[str, Rebuild], data: Any) -> Any:
    """Give the members their names back."""
    if isinstance(data, cls):
        return data
    _require(type(data) is tuple and len(data) == len(cls._fields), cls.__qualname__, data)
    return cls._make(_rebuilt(changing, dict(zip(cls._fields, data, strict=True))).values())


def typed_dict(changing: Mapping[str, Rebuild], data: Any) -> Any:
    """Rebuild the members that need it; a TypedDict does not insist on which there are."""
    _require(type(data) is dict, "a TypedDict", data)
    return _rebuilt(changing, data)


def mapping(key: Rebuild, value: Rebuild, data: Any) -> Any:
    """Rebuild the keys and values of a dict."""
    _require(type(data) is dict, "a mapping", data)
    return {key(name): value(each) for name, each in data.items()}


def collection(item: Rebuild, data: Any) -> Any:
    """Rebuild the items of a list, tuple, set or frozenset."""
    _require(type(data) in _COLLECTIONS, "a collection", data)
    return type(data)(item(each) for each in data)


def fixed_tuple(members: Sequence[Rebuild], data: Any) -> Any:
    """Rebuild the members of a tuple of fixed length."""
    _require(type(data) is tuple and len(data) == len(members), f"a tuple of {len(members)}", data)
    return tuple(member(each) for member, each in zip(members, data, strict=True))


def union(rebuilds: Sequence[Rebuild], scalars: Collection[type], other_plain: bool, data: Any) -> Any:
    """Take the one member that fits; data of a plain scalar member's own type is that.

    :param other_plain: whether the union has further members that need no rebuilding, for which data stays as it is.
    """
    if type(data) in scalars:
        return data
    fitting: list[Any] = []
    for each in rebuilds:
        try:
            candidate = each(data)
        except UndecodableError:
            continue
        if not any(type(candidate) is type(other) and candidate == other for other in fitting):
            fitting.append(candidate)
    if len(fitting) > 1:
        names = " and ".join(type(each).__qualname__ for each in fitting)
        raise UndecodableError(f"stored data fits more than one member of a union: {names}; register_type() them")
    if not fitting:
        _require(other_plain, "any member of a union", data)
        return data
    return fitting[0]
