"""The fields of a context as a document of plain data, and what plain data leaves out.

The document has each field under its name, nested models and dataclasses as objects, so that upgraders and people can
read it. What that leaves out is stored beside it under ``$rest``: a list of ``[path, rest]``, one for each model or
dataclass with a rest (see :mod:`agent_service.core.values.instances`). A rest may also have:

``absent``      fields that hold no value
``serialized``  fields that hold what their pydantic serializer made of a value without a stored form
"""

import copy
import functools
from collections import OrderedDict, defaultdict, deque
from dataclasses import is_dataclass
from enum import Enum
from typing import Any, Final

from pydantic import BaseModel, RootModel

from agent_service.core.codec import encode
from agent_service.core.errors import CacheSerializationError, StateStoreError
from agent_service.core.values.instances import Parts, Rest, plain_data, rest_of, runs_code
from agent_service.core.values.refusal import NotWritable
from agent_service.core.values.registry import BY_CLASS
from agent_service.core.values.restoring import serialized_fields
from agent_service.core.values.typed import record_hints, restorer

__all__ = ["REST", "attach", "take_fields"]

REST: Final = "$rest"
"""A field of the document; no model can have a field of this name."""

_MAPPINGS: Final = (dict, OrderedDict, defaultdict)
_SEQUENCES: Final = (list, tuple, set, frozenset)


def take_fields(context: BaseModel, *, serialize: bool) -> dict[str, Any]:
    """Return the fields of a context as plain data, with ``$rest`` if plain data leaves something out.

    :param serialize: replace values without a stored form by what pydantic serializers make of them.
    :raises StateStoreError: if a value cannot be stored; it names the place.
    """
    taker = _Taker(serialize)
    fields: dict[str, Any] = taker.model(context, [], noted=True)
    return fields | {REST: taker.notes} if taker.notes else fields


class _Taker:
    """One walk over one context."""

    def __init__(self, serialize: bool) -> None:
        self._serialize = serialize
        self.notes: list[list[Any]] = []

    def value(self, value: Any, path: list[Any], *, noted: bool) -> Any:
        """Return the plain data of a value.

        :param noted: whether its rest can be restored, because an annotation tells its class.
        """
        kind = type(value)
        if kind in BY_CLASS:
            return value
        if isinstance(value, BaseModel):
            return self.model(value, path, noted=noted)
        if isinstance(value, Enum):
            return self.value(value.value, path, noted=False)
        if is_dataclass(value) and not isinstance(value, type):
            return self._dataclass(value, path, noted=noted)
        if kind in _MAPPINGS:
            taken = copy.copy(value)
            taken.clear()
            for key, each in value.items():
                plain = self.value(key, path, noted=False)
                try:
                    taken[plain] = self.value(each, [*path, plain], noted=noted)
                except TypeError:
                    raise _unhashable(path) from None
            return taken
        if kind is deque:
            return deque(self._items(value, path, noted=noted), value.maxlen)
        if kind in _SEQUENCES:
            items = self._items(value, path, noted=noted)
            try:
                return kind(items)
            except TypeError:
                raise _unhashable(path) from None
        return self._named_tuple(value, path, noted=noted) if hasattr(kind, "_fields") else value

    def _items(self, items: Any, path: list[Any], *, noted: bool) -> list[Any]:
        return [self.value(each, [*path, index], noted=noted) for index, each in enumerate(items)]

    def model(self, value: BaseModel, path: list[Any], *, noted: bool) -> Any:
        """Return the fields of a model, or the root of a RootModel."""
        kind = type(value)
        rest = self._rest(value, path)
        if isinstance(value, RootModel):
            if noted and rest.keys() - {"unset"}:
                raise StateStoreError(f"{_name(path)} is a RootModel with attributes, which no document can say")
            return self.value(value.root, path, noted=noted)
        taken: dict[str, Any] = {}
        for name, each in plain_data(value).items():
            field = kind.model_fields.get(name)
            if field is None or not field.exclude:
                each_noted = noted and name in _rebuilt_fields(kind)
                taken[name] = self._field(value, name, self.value(each, [*path, name], noted=each_noted), rest)
        absent = [name for name, each in kind.model_fields.items() if name not in vars(value) and not each.exclude]
        if absent:
            rest["absent"] = absent
        if "unset" in rest:
            rest["unset"] = [name for name in rest["unset"] if name in taken]
        if noted and (any(rest.values()) or runs_code(kind) or serialized_fields(kind)):
            self.notes.append([path, {name: each for name, each in rest.items() if each}])
        return taken

    def _field(self, model: BaseModel, name: str, taken: Any, rest: Rest) -> Any:
        if not self._serialize:
            return taken
        try:
            encode(taken)
        except CacheSerializationError:
            try:
                dumped = model.model_dump(include={name}, by_alias=False, round_trip=True, warnings="none")[name]
            except Exception as exc:  # serializers are the model's own code
                raise StateStoreError(f"{type(exc).__name__} while the field {name} was serialized") from exc
            rest.setdefault("serialized", []).append(name)
            return dumped
        return taken

    def _dataclass(self, value: Any, path: list[Any], *, noted: bool) -> Any:
        kind: type = type(value)
        rest = self._rest(value, path)
        if noted and (rest or runs_code(kind)):
            self.notes.append([path, rest])
        names = _rebuilt_fields(kind)
        return {
            name: self.value(each, [*path, name], noted=noted and name in names)
            for name, each in plain_data(value).items()
        }

    def _named_tuple(self, value: Any, path: list[Any], *, noted: bool) -> tuple[Any, ...]:
        kind: type = type(value)
        names = _rebuilt_fields(kind)
        pairs = enumerate(zip(value._fields, value, strict=True))
        return tuple(self.value(each, [*path, index], noted=noted and name in names) for index, (name, each) in pairs)

    def _rest(self, value: Any, path: list[Any]) -> Rest:
        try:
            rest = rest_of(value)
        except NotWritable as exc:
            raise StateStoreError(f"{_name(path)} cannot be stored: {exc}") from exc
        for each in (rest.get("private", {}), rest.get("attributes", {})):
            for name, attribute in each.items():
                _require_plain(attribute, f"{_name(path)}.{name}")
        return rest


def _require_plain(value: Any, name: str) -> None:
    """Refuse instances of classes in attributes, because no annotation tells their class."""
    try:
        data, _ = encode(value, keep_classes=True)
    except CacheSerializationError as exc:
        raise StateStoreError(f"{name} cannot be stored: {exc}") from exc
    if data.startswith(b'{"$whole":'):
        kind = data.split(b'"', 4)[3].decode()
        raise StateStoreError(
            f"{name} cannot be stored: it holds a {kind}; make it a field, or register_type() the class"
        )


def _unhashable(path: list[Any]) -> StateStoreError:
    return StateStoreError(
        f"{_name(path)} has members or keys that become plain data, which is not hashable; register_type() their class"
    )


def _name(path: list[Any]) -> str:
    return ".".join(map(str, path)) or "it"


@functools.lru_cache(maxsize=1000)  # a service may make classes as it runs
def _rebuilt_fields(cls: type) -> frozenset[str]:
    """Return the fields whose annotations tell the class of the value."""
    return frozenset(name for name, hint in record_hints(cls).items() if restorer(hint) is not None)


def attach(fields: dict[str, Any], notes: Any) -> Any:
    """Return the fields with each rest beside its data; changes the given fields.

    Data that an upgrader moved or removed loses its rest.
    """
    whole: Any = fields
    for path, rest in notes:
        whole = _attached(whole, path, rest)
    return whole


def _attached(value: Any, path: list[Any], rest: Rest) -> Any:
    if type(value) is Parts:
        return Parts(_attached(value.data, path, rest), value.rest)
    if not path:
        return Parts(value, rest) if type(value) is dict else value
    step, *steps = path
    try:
        inner = _attached(value[step], steps, rest)
    except (LookupError, TypeError):
        return value
    if isinstance(value, tuple):
        return (*value[:step], inner, *value[step + 1 :])
    value[step] = inner
    return value
