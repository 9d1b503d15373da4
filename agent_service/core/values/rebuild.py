"""The parts that :mod:`.typed` composes: each rebuilds one kind of type from plain data, and changes no input.

All raise :class:`~agent_service.core.errors.UndecodableError` for data that does not fit. Data that is rebuilt
already, because its class is registered with the codec, passes through. Values are restored, never validated.
"""

from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from enum import Enum
from typing import Any, TypeAlias

from pydantic import BaseModel, RootModel
from pydantic_core import PydanticUndefined

from agent_service.core.errors import UndecodableError
from agent_service.core.values.conformity import Check
from agent_service.core.values.instances import Assemble, Parts, runs_code

Rebuild: TypeAlias = Callable[[Any], Any]
_COLLECTIONS = frozenset({list, tuple, set, frozenset})
_MISSING = object()


class Pending:
    """A placeholder, inside its own fields, for a record that is being compiled."""

    rebuild: Rebuild | None

    def __call__(self, data: Any) -> Any:
        """Rebuild as the record does, once it is compiled."""
        return self.rebuild(data) if self.rebuild else data


def unchanged(data: Any) -> Any:
    """Return the data without its rest, which nothing needs here."""
    return data.data if type(data) is Parts else data


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
    """Find a Literal's choice by its plain data: the value of an Enum member, else the choice itself."""
    try:
        return choices[data]
    except (KeyError, TypeError) as exc:
        raise UndecodableError("stored data is no choice of a Literal") from exc


def _rebuilt(changing: Mapping[str, Rebuild], data: Mapping[str, Any]) -> dict[str, Any]:
    return {name: changing.get(name, unchanged)(value) for name, value in data.items()}


def dataclass(
    cls: type, init: Mapping[str, bool], changing: Mapping[str, Rebuild], assemble: Assemble, data: Any
) -> Any:
    """Assemble what was taken apart. From fields alone, call the class, then set the fields that came out different."""
    if isinstance(data, cls):
        return data
    if type(data) is Parts:
        return assemble(_rebuilt(changing, data.data), data.rest)
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


def model(
    cls: type[BaseModel],
    changing: Mapping[str, Rebuild],
    checks: Callable[[], Mapping[str, Check]],
    assemble: Assemble,
    data: Any,
) -> Any:
    """Restore the fields by name, if they have the declared types; validators do not run."""
    if isinstance(data, cls):
        return data
    data, rest = data if type(data) is Parts else (data, None)
    if issubclass(cls, RootModel):
        built = changing["root"](data) if "root" in changing else data
        values = {"root": built}
    else:
        names = cls.model_fields.keys()
        more_is_fine = cls.model_config.get("extra") == "allow"
        fits = type(data) is dict and (
            data.keys() == names
            or (more_is_fine and data.keys() >= names)
            or (rest is not None and data.keys() <= names)
        )
        _require(fits, cls.__qualname__, data)
        built = values = _rebuilt(changing, data)
    for name, check in checks().items():
        if name in values and not check(values[name]) and values[name] is not cls.model_fields[name].default:
            raise UndecodableError(f"the stored field {name} of {cls.__qualname__} is not of its type")
    return _anew(cls, assemble, built) if rest is None else assemble(built, rest)


def _anew(cls: type[BaseModel], assemble: Assemble, data: Any) -> BaseModel:
    """Make a model of its fields alone, as the first release stored it; private attributes get their defaults."""
    built: BaseModel = assemble(data, {"private": private_defaults(cls)})
    if runs_code(cls):
        run_post_init(built)
    return built


def private_defaults(cls: type[BaseModel]) -> dict[str, Any]:
    """Return the private attributes that a new instance of a model has."""
    defaults = {name: each.get_default() for name, each in cls.__private_attributes__.items()}
    return {name: each for name, each in defaults.items() if each is not PydanticUndefined}


def run_post_init(built: BaseModel) -> None:
    """Run ``model_post_init`` for the private attributes; what it changes in fields is undone, as it ran before.

    :raises UndecodableError: if it raises.
    """
    fields, extra = dict(vars(built)), built.__pydantic_extra__
    try:
        built.model_post_init(None)
    except Exception as exc:  # the caller's code
        name = type(built).__qualname__
        raise UndecodableError(f"stored data does not make a {name}: {type(exc).__name__}") from exc
    object.__setattr__(built, "__dict__", fields)
    object.__setattr__(built, "__pydantic_extra__", extra)


def named_tuple(cls: Any, changing: Mapping[str, Rebuild], data: Any) -> Any:
    """Restore the names of the members."""
    if isinstance(data, cls):
        return data
    if type(data) is Parts:
        data = data.data
    _require(type(data) is tuple and len(data) == len(cls._fields), cls.__qualname__, data)
    return cls._make(_rebuilt(changing, dict(zip(cls._fields, data, strict=True))).values())


def typed_dict(changing: Mapping[str, Rebuild], required: Collection[str], data: Any) -> Any:
    """Rebuild the members that need it."""
    _require(type(data) is dict and all(name in data for name in required), "a TypedDict", data)
    return _rebuilt(changing, data)


def mapping(key: Rebuild, value: Rebuild, data: Any) -> Any:
    """Rebuild the keys and values of a dict."""
    _require(isinstance(data, dict), "a mapping", data)
    rebuilt = {key(name): value(each) for name, each in data.items()}
    if type(data) is dict:
        return rebuilt
    same = data.copy()  # with the factory of a defaultdict
    same.clear()
    same.update(rebuilt)
    return same


def collection(item: Rebuild, data: Any) -> Any:
    """Rebuild the items of a list, tuple, set, frozenset or deque."""
    if type(data) is deque:
        return deque(map(item, data), data.maxlen)
    _require(type(data) in _COLLECTIONS, "a collection", data)
    return type(data)(item(each) for each in data)


def fixed_tuple(members: Sequence[Rebuild], data: Any) -> Any:
    """Rebuild the members of a tuple of fixed length."""
    _require(type(data) is tuple and len(data) == len(members), f"a tuple of {len(members)}", data)
    return tuple(member(each) for member, each in zip(members, data, strict=True))


def union(
    rebuilds: Sequence[Rebuild],
    scalars: Collection[type],
    other_plain: bool,
    checks: Callable[[], Sequence[Check]],
    data: Any,
) -> Any:
    """Rebuild the one member that fits; data with the type of a plain scalar member is that member.

    :param other_plain: whether the union has further members that need no rebuilding, for which data stays as it is.
    :param checks: gives the checks of all members that need no rebuilding.
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
        _require(other_plain or any(check(data) for check in checks()), "any member of a union", data)
        return unchanged(data)
    return fitting[0]
