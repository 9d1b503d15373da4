"""Find where a context would load differently from what it is: checked before each save, so that nothing is lost."""

from collections.abc import Iterator, Mapping
from dataclasses import is_dataclass
from enum import Enum
from typing import Any

from pydantic import BaseModel

from agent_service.core.values.instances import is_record, plain_data, rest_of

__all__ = ["first_difference"]

_SETTLED_BY_THE_STORE = ["schema_version"]


def first_difference(context: BaseModel, restored: BaseModel) -> str | None:
    """Return the first field that would differ, and what it would become; None if there is no such field.

    A record that becomes plain data is no difference: no annotation tells its class there.
    """
    return next(_differences(context, restored, ""), None)


def _differences(given: Any, back: Any, path: str) -> Iterator[str]:
    kind = type(given)
    if kind is not type(back):
        if not is_record(kind) or is_record(type(back)):
            yield f"{path or 'it'} is a {kind.__qualname__} and would be a {type(back).__qualname__}"
    elif isinstance(given, BaseModel):
        yield from _model_differences(given, back, path)
    elif is_dataclass(given):
        yield from _differences(_attributes(given), _attributes(back), path)
    elif isinstance(given, Mapping):
        yield from _mapping_differences(given, back, path)
    elif isinstance(given, list | tuple):
        if len(given) != len(back):
            yield f"{path} has {len(given)} items and would have {len(back)}"
        for index, (one, other) in enumerate(zip(given, back, strict=False)):
            yield from _differences(one, other, f"{path}.{index}")
    elif isinstance(given, Enum):
        if given is not back and given != back:
            yield f"{path} is {given.name} and would be {back.name}"
    elif not _same(given, back):
        yield f"{path} would have another value"


def _attributes(value: Any) -> dict[str, Any]:
    return {**plain_data(value), **rest_of(value).get("attributes", {})}


def _model_differences(given: BaseModel, back: BaseModel, path: str) -> Iterator[str]:
    fields = type(given).model_fields
    kept = [name for name, each in fields.items() if not each.exclude and (path or name not in _SETTLED_BY_THE_STORE)]
    one, other = vars(given), vars(back)
    yield from _mapping_differences(
        {name: one[name] for name in kept if name in one}, {name: other[name] for name in kept if name in other}, path
    )
    yield from _mapping_differences(given.__pydantic_extra__ or {}, back.__pydantic_extra__ or {}, path)
    yield from _mapping_differences(given.__pydantic_private__ or {}, back.__pydantic_private__ or {}, path)


def _mapping_differences(given: Mapping[Any, Any], back: Mapping[Any, Any], path: str) -> Iterator[str]:
    for key in [*given, *(key for key in back if key not in given)]:
        step = f"{path}.{key}" if path else f"{key}"
        plain = key if key in back else getattr(key, "value", key)
        if key in given and plain in back:
            yield from _differences(given[key], back[plain], step)
        elif key in given:
            yield f"{step} would be missing"
        elif not any(getattr(each, "value", each) == key for each in given):
            yield f"{step} would be there"


def _same(given: Any, back: Any) -> bool:
    return given == back or repr(given) == repr(back)  # two NaN, for example
