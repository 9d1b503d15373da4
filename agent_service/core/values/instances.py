"""Take instances of records apart, and put them together without running constructors or validators.

A record is a dataclass, pydantic model, Enum member or NamedTuple. :func:`plain_data` returns its fields or value,
which represent it for a reader that names no class. :func:`rest_of` returns what the fields do not hold, by kind:

``unset``       fields of a model that hold a value and are not in ``model_fields_set``
``set``         names in ``model_fields_set`` that hold no value
``private``     private attributes of a model
``attributes``  attributes that are no fields
``name``        the name of an Enum member, to notice that its value now belongs to another member
``row``         whether a row of SQLAlchemy has an identity in a database

The value of a ``functools.cached_property`` is left out, because it is computed again.
"""

import functools
import types
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass
from enum import Enum
from inspect import getattr_static
from typing import Any, NamedTuple, TypeAlias

from pydantic import BaseModel, RootModel

from agent_service.core.errors import UndecodableError
from agent_service.core.values import rows
from agent_service.core.values.refusal import NotWritable, reason_for

__all__ = ["Assemble", "Parts", "Rest", "assembler", "is_record", "plain_data", "rest_of", "runs_code"]

Rest: TypeAlias = dict[str, Any]
Assemble: TypeAlias = Callable[[Any, Rest], Any]
"""Makes an instance from its data and rest; both belong to the instance from then on."""

_PASSING = {"__orig_class__", rows.STATE}
"""Attributes that ``typing`` sets on instances of generic classes, and that SQLAlchemy sets on each row."""
_put = object.__setattr__  # past frozen classes, validate_assignment and properties


class Parts(NamedTuple):
    """A record's data with its rest, before they become an instance again."""

    data: Any
    rest: Rest


def is_record(cls: type) -> bool:
    """Return whether instances of a class can be taken apart."""
    return (
        issubclass(cls, Enum | BaseModel) or is_dataclass(cls) or (issubclass(cls, tuple) and hasattr(cls, "_fields"))
    )


def runs_code(cls: type) -> bool:
    """Return whether the class's own constructor does more than set the fields."""
    if issubclass(cls, BaseModel):
        return not cls.model_post_init.__module__.startswith("pydantic.")
    return is_dataclass(cls) and (hasattr(cls, "__post_init__") or hasattr(cls, "__pydantic_validator__"))


def plain_data(value: Any) -> Any:
    """Return the plain data of a record; its members stay what they are.

    :raises NotWritable: if it is no record, or a field cannot be read.
    """
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, BaseModel):
        if isinstance(value, RootModel):
            return value.root
        state, extra = value.__dict__, value.__pydantic_extra__
        return {name: state[name] for name in type(value).model_fields if name in state} | (extra or {})
    if is_dataclass(value) and not isinstance(value, type):
        return dict(_fields_of(value))
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return tuple(value)
    raise NotWritable(reason_for(value))


def _fields_of(value: Any) -> Iterator[tuple[str, Any]]:
    state = getattr(value, "__dict__", {})
    is_row = rows.STATE in state
    for field in fields(value):
        if field.name in state:
            if not (is_row and _is_empty_collection(state[field.name])):
                yield field.name, state[field.name]
            continue
        if is_row:  # what is not loaded would be loaded by asking for it
            continue
        try:
            yield field.name, getattr(value, field.name)
        except AttributeError:
            continue  # it was never set, or deleted
        except Exception as exc:  # a property or an ORM's loader, which are the caller's code
            raise NotWritable(f"reading its field {field.name} raised {type(exc).__name__}") from exc


def rest_of(value: Any) -> Rest:
    """Return what :func:`plain_data` leaves out of a record.

    :raises NotWritable: if the record is more than its attributes.
    """
    if isinstance(value, Enum):
        return {"name": value.name}
    state = getattr(value, "__dict__", {})
    rest: Rest = {"row": rows.has_identity(value)} if rows.STATE in state else {}
    _require_only_attributes(type(value))
    if isinstance(value, BaseModel):
        return rest | _rest_of_model(value)
    names = {field.name for field in fields(value)} if is_dataclass(value) else set()
    if attributes := _attributes(value, names):
        rest["attributes"] = attributes
    return rest


def _rest_of_model(value: BaseModel) -> Rest:
    declared, extra = type(value).model_fields, value.__pydantic_extra__ or {}
    if not declared.keys().isdisjoint(extra):
        raise NotWritable("one of its extra fields has the name of a declared one")
    state, given = value.__dict__, value.__pydantic_fields_set__
    names = [name for name in declared if name in state] + list(extra)
    rest: Rest = {}
    if unset := [name for name in names if name not in given]:
        rest["unset"] = unset
    if absent := sorted(given.difference(names)):
        rest["set"] = absent
    if private := value.__pydantic_private__:
        rest["private"] = dict(private)
    if attributes := _attributes(value, declared):
        rest["attributes"] = attributes
    return rest


def _attributes(value: Any, names: Any) -> dict[str, Any]:
    kind = type(value)
    found = {
        name: each
        for name, each in getattr(value, "__dict__", {}).items()
        if not (name in names or name in _PASSING or name.startswith("__pydantic_") or _is_remembered(kind, name))
        and not (rows.STATE in vars(value) and _is_empty_collection(each))
    }
    found.update((name, getattr(value, name)) for name in slots(kind) if name not in names and hasattr(value, name))
    return found


def _is_empty_collection(value: Any) -> bool:
    """Return whether a value is an empty collection of a relationship, which every row has."""
    return type(value).__module__.startswith("sqlalchemy.") and not value


def _is_remembered(cls: type, name: str) -> bool:
    return isinstance(getattr_static(cls, name, None), functools.cached_property)


def slots(cls: type) -> list[str]:
    """Return the names of the attributes that a class keeps in slots of its own or of a base."""
    return [
        name
        for each in cls.__mro__
        if not each.__module__.startswith("pydantic.")
        for name, member in vars(each).items()
        if isinstance(member, types.MemberDescriptorType) and not name.startswith("__")
    ]


def _require_only_attributes(cls: type) -> None:
    """Refuse classes whose instances hold more than attributes show, because a base is a dict, an Exception, ..."""
    for base in cls.__mro__:
        if base.__module__ == "builtins" and base is not object and not (base is tuple and hasattr(cls, "_fields")):
            raise NotWritable(
                f"it is a {cls.__qualname__}, whose contents as a {base.__qualname__} are not among its fields; "
                f"call register_type({cls.__qualname__}, dump=..., load=...)"
            )


def assembler(cls: type) -> Assemble:
    """Return the function that makes an instance of a record's class. It checks nothing about the data."""
    if issubclass(cls, Enum):
        return functools.partial(_enum_member, cls)
    if rows.is_mapped(cls):
        return functools.partial(_row, cls)
    if issubclass(cls, BaseModel):
        return _model_assembler(cls)
    if is_dataclass(cls):
        return _dataclass_assembler(cls)
    return functools.partial(_named_tuple, cls)


def _enum_member(cls: type[Enum], data: Any, rest: Rest) -> Any:
    name = rest.get("name")
    member = cls.__members__.get(name) if name is not None else None
    if member is None:
        member = cls(data)  # several flags at once
    if member.name != name or type(member.value) is not type(data) or member.value != data:
        raise UndecodableError(f"stored data is no member of {cls.__qualname__} as it is now")
    return member


def _model_assembler(cls: type[BaseModel]) -> Assemble:
    names = frozenset(cls.model_fields)
    has_private = bool(cls.__private_attributes__)
    has_extra = cls.model_config.get("extra") == "allow"
    is_root = issubclass(cls, RootModel)

    def assemble(data: Any, rest: Rest) -> BaseModel:
        values = {"root": data} if is_root else data
        given, extra, private = set(values), None, None
        if has_extra:
            extra = {name: each for name, each in values.items() if name not in names}
            values = {name: each for name, each in values.items() if name in names}
        if has_private:
            private = rest.get("private", {})
        if rest:
            given.difference_update(rest.get("unset", ()))
            given.update(rest.get("set", ()))
        built: BaseModel = object.__new__(cls)
        _put(built, "__dict__", values)
        _put(built, "__pydantic_fields_set__", given)
        if not is_root:  # the class itself has None for all its instances
            _put(built, "__pydantic_extra__", extra)
            _put(built, "__pydantic_private__", private)
        elif has_private:
            _put(built, "__pydantic_private__", private)
        if "attributes" in rest:
            _put_attributes(built, rest["attributes"])
        return built

    return assemble


def _dataclass_assembler(cls: type) -> Assemble:
    simple = all(_is_kept_in_dict(cls, field.name) for field in fields(cls))

    def assemble(data: Any, rest: Rest) -> Any:
        built: Any = object.__new__(cls)
        if simple:
            built.__dict__.update(data)
        else:
            _put_attributes(built, data)
        if rest:
            _put_attributes(built, rest.get("attributes", {}))
        return built

    return assemble


def _is_kept_in_dict(cls: type, name: str) -> bool:
    return not hasattr(type(getattr_static(cls, name, None)), "__set__")


def _put_attributes(built: Any, attributes: dict[str, Any]) -> None:
    cls = type(built)
    for name, each in attributes.items():
        if isinstance(getattr_static(cls, name, None), types.MemberDescriptorType):
            _put(built, name, each)
        elif _is_kept_in_dict(cls, name):
            built.__dict__[name] = each
        # else a property, whose value is computed from attributes that are kept


def _row(cls: type, data: Any, rest: Rest) -> Any:
    built = rows.new_row(cls)
    vars(built).update(data | rest.get("attributes", {}))
    if isinstance(built, BaseModel):
        given = set(data).difference(rest.get("unset", ())).union(rest.get("set", ()))
        _put(built, "__pydantic_fields_set__", given)
        _put(built, "__pydantic_private__", rest.get("private"))
    if rest.get("row"):
        rows.give_identity(built)
    return built


def _named_tuple(cls: Any, data: Any, rest: Rest) -> Any:
    built = tuple.__new__(cls, data)
    if rest:
        _put_attributes(built, rest.get("attributes", {}))
    return built
