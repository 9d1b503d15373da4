"""How repositories store a value: as the codec does, and pydantic models as objects by field name.

Standard types (datetime, UUID, Decimal, tuple, set, ...) come back as themselves, Enum members as their values. The
fields of a model that are declared ``bool``, alone or inside ``Optional``, lists, tuples, sets and dicts, are written
as ``"1"`` and ``"0"``; the model makes them bool again if the reader names it. Nothing outside of models is
written like this, and a field of a wider type (``bool | int``, ``Any``) keeps ``true`` and ``false``.
"""

import types
from collections.abc import Collection, Mapping
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network
from pathlib import PurePath
from typing import Annotated, Any, Final, TypeVar, Union, get_args, get_origin

from pydantic import AnyUrl, BaseModel, RootModel, ValidationError

from agent_service.core.codec import decode, encode
from agent_service.core.errors import CacheSerializationError, RecordValueError, UndecodableError
from agent_service.core.values.instances import plain_data
from agent_service.core.values.registry import BY_CLASS
from agent_service.core.values.restoring import restore_model

__all__ = ["Models", "dumps", "loads", "restore", "restore_fields", "to_storable"]

Model = TypeVar("Model", bound=BaseModel)
Models = Mapping[str, type[BaseModel]]
"""By field: the model that its value is read as."""

_WRITTEN_AS_TEXT: Final = (
    *(AnyUrl, PurePath),
    *(IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network),
)
"""Types in models that the codec does not know, and that models can read from text."""


def dumps(value: Any) -> str:
    """Return the JSON of a value.

    :raises RecordValueError: naming the path to what cannot be written.
    """
    try:
        return encode(to_storable(value))[0].decode()
    except CacheSerializationError as exc:
        raise RecordValueError(str(exc)) from exc


def loads(raw: str | bytes, model: type[Model] | None = None) -> Any:
    """Return the value that :func:`dumps` wrote.

    :param model: the type to read the value as; None: plain data.
    :raises UndecodableError: if :func:`dumps` did not write the text, or the value does not fit the model.
    """
    value = decode(raw.encode() if isinstance(raw, str) else raw, tagged=True)
    return value if model is None else restore(value, model)


def to_storable(value: Any) -> Any:
    """Return a value with each model replaced by data that the codec can write; the value itself if it has none."""
    if isinstance(value, BaseModel):
        return _model(value)
    kind = type(value)
    if kind is dict:
        changed = {key: to_storable(each) for key, each in value.items()}
        return changed if any(changed[key] is not each for key, each in value.items()) else value
    if kind is list or kind is tuple:
        items = kind(to_storable(each) for each in value)
        return items if any(new is not old for new, old in zip(items, value, strict=True)) else value
    return value


def _model(value: BaseModel) -> Any:
    if type(value) in BY_CLASS:
        return value
    data, declared = plain_data(value), type(value).model_fields
    if isinstance(value, RootModel):
        return _member(data, declared["root"].annotation)
    return {name: _member(each, declared[name].annotation if name in declared else Any) for name, each in data.items()}


def _member(value: Any, annotation: Any) -> Any:
    """Return what is stored for a model's member, by its declared type."""
    kind = type(value)
    if kind is bool:
        return ("1" if value else "0") if _unwrap(annotation) is bool else value
    if isinstance(value, BaseModel):
        return _model(value)
    if isinstance(value, _WRITTEN_AS_TEXT):
        return str(value)
    if kind is dict:
        key, each_value = _arguments(annotation, 2)
        return {_member(name, key): _member(each, each_value) for name, each in value.items()}
    if kind in {list, set, frozenset, tuple}:
        return kind(_member(each, item) for each, item in zip(value, _items(annotation, value), strict=True))
    return value


def _items(annotation: Any, value: Collection[Any]) -> list[Any]:
    """Return the declared type of each item of a collection."""
    given = get_args(_unwrap(annotation))
    if isinstance(value, tuple) and len(given) == len(value) and Ellipsis not in given:
        return list(given)
    return [given[0] if given and (len(given) == 1 or given[1] is Ellipsis) else Any] * len(value)


def _arguments(annotation: Any, number: int) -> tuple[Any, ...]:
    given = get_args(_unwrap(annotation))
    return given if len(given) == number else (Any,) * number


def _unwrap(annotation: Any) -> Any:
    """Return the type inside Annotated and Optional."""
    while True:
        origin = get_origin(annotation)
        if origin is Annotated:
            annotation = annotation.__origin__
            continue
        if origin is Union or origin is types.UnionType:
            members = [each for each in get_args(annotation) if each is not type(None)]
            if len(members) == 1:
                annotation = members[0]
                continue
        return annotation


def restore(value: Any, model: type[Model]) -> Model:
    """Return a model made of its stored form. Fields that were not stored get their defaults.

    :raises UndecodableError: if the value does not fit; it names the places and never shows values.
    """
    if isinstance(value, model):
        return value
    try:
        return restore_model(model, value)
    except ValidationError as exc:
        places = "; ".join(
            f"{'.'.join(map(str, each['loc'])) or 'value'}: {each['type']}" for each in exc.errors(include_input=False)
        )
        raise UndecodableError(f"stored data does not make a {model.__qualname__}: {places}") from None


def restore_fields(data: dict[str, Any], models: Models | None) -> dict[str, Any]:
    """Turn the named fields into models, in place; a missing field and None stay as they are.

    :raises UndecodableError: like :func:`restore`, naming the field.
    """
    for field, model in (models or {}).items():
        if data.get(field) is not None:
            try:
                data[field] = restore(data[field], model)
            except UndecodableError as exc:
                raise UndecodableError(f"field {field!r:.80}: {exc}") from exc.__cause__
    return data
