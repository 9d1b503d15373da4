"""Check whether a value has the type that an annotation names. Nothing is validated, coerced or changed.

Only what Python itself can tell is checked. An annotation with a meaning of its own, given by pydantic or the
application, counts as met, and so does ``Any``.
"""

import sys
import types
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields, is_dataclass
from datetime import date, datetime
from functools import partial
from typing import (
    Annotated,
    Any,
    ForwardRef,
    Literal,
    Self,
    TypeAlias,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

import pydantic
from pydantic import BaseModel
from typing_extensions import is_typeddict

from agent_service.core.values.text_types import URLS

__all__ = ["Check", "bound_of", "conforms", "unwrapped"]

Check: TypeAlias = Callable[[Any], bool]

_STAND_FOR: Mapping[Any, type] = {
    pydantic.AwareDatetime: datetime,
    pydantic.NaiveDatetime: datetime,
    pydantic.PastDatetime: datetime,
    pydantic.FutureDatetime: datetime,
    pydantic.PastDate: date,
    pydantic.FutureDate: date,
    pydantic.EmailStr: str,
}
_OF_PYDANTIC = (*URLS, pydantic.SecretStr, pydantic.SecretBytes)
"""Classes of pydantic whose instances a field holds as they are."""
_ALSO: Mapping[type, tuple[type, ...]] = {float: (float, int), complex: (complex, float, int)}
_HOLDERS = (list, tuple, set, frozenset, deque)
_PLAIN = frozenset({dict, list, tuple, str, int, float, bool, types.NoneType})
_OPEN = (object, Any)
_MOST_STEPS = 100


def conforms(annotation: Any, self_class: type | None = None) -> Check | None:
    """Return a function that checks a value against an annotation; None if every value conforms.

    It checks the members of containers and the fields of records.

    :param self_class: what ``Self`` stands for.
    """
    return _Compiler().check(annotation, {} if self_class is None else {Self: self_class})


class _Compiler:
    """Turns annotations into checks, each record once, so that a record may contain itself."""

    def __init__(self) -> None:
        self._records: dict[Any, dict[str, Check]] = {}

    def check(self, annotation: Any, arguments: Mapping[Any, Any]) -> Check | None:
        annotation = unwrapped(annotation, arguments)
        annotation = _STAND_FOR.get(annotation, annotation) if isinstance(annotation, type) else annotation
        origin = get_origin(annotation)
        if origin is Union or origin is types.UnionType:
            return self._union(get_args(annotation), arguments)
        if origin is Literal:
            return partial(_is_choice, get_args(annotation))
        if origin is type:
            return partial(_is_instance, type)
        if annotation is None:
            return partial(_is_instance, types.NoneType)
        cls = origin or annotation
        if not isinstance(cls, type) or cls in _OPEN:
            return None
        if is_typeddict(cls):
            return partial(_has_members, vars(cls)["__required_keys__"], self._fields(cls, (), _typed_dict_fields(cls)))
        if issubclass(cls, BaseModel) or is_dataclass(cls):
            given = tuple(unwrapped(each, arguments) for each in get_args(annotation))
            return partial(_is_record, cls, self._fields(cls, given, _record_fields(cls)))
        if issubclass(cls, _OF_PYDANTIC):
            return partial(_is_instance, cls)
        if cls.__module__.startswith(("pydantic.", "sqlalchemy.")) or hasattr(cls, "__get_pydantic_core_schema__"):
            return None
        return self._container(cls, get_args(annotation), arguments)

    def _fields(self, cls: Any, given: tuple[Any, ...], annotations: Mapping[str, Any]) -> dict[str, Check]:
        checks = self._records.get((cls, given))
        if checks is None:
            checks = self._records[cls, given] = {}
            arguments = dict(zip(getattr(cls, "__parameters__", ()), given, strict=False))
            for name, annotation in annotations.items():
                if (each := self.check(annotation, arguments)) is not None:
                    checks[name] = each
        return checks

    def _union(self, members: tuple[Any, ...], arguments: Mapping[Any, Any]) -> Check | None:
        checks = [each for member in members if (each := self.check(member, arguments)) is not None]
        return partial(_is_any, checks) if len(checks) == len(members) else None

    def _container(self, cls: type, given: tuple[Any, ...], arguments: Mapping[Any, Any]) -> Check:
        members = [self.check(each, arguments) for each in given if each is not Ellipsis]
        if issubclass(cls, Mapping) and len(members) == 2:
            return partial(_is_mapping, cls, members[0], members[1])
        if cls is tuple and given and Ellipsis not in given:
            return partial(_is_tuple, members)
        if issubclass(cls, Iterable) and len(members) == 1 and members[0] is not None:
            return partial(_is_collection, cls, members[0])
        return partial(_is_instance, _ALSO.get(cls, cls))


def unwrapped(annotation: Any, arguments: Mapping[Any, Any]) -> Any:
    """Return the type behind type variables, Annotated, NewType, type aliases and the qualifiers of a TypedDict."""
    for _ in range(_MOST_STEPS):
        if isinstance(annotation, TypeVar):
            annotation = arguments[annotation] if annotation in arguments else bound_of(annotation)
        elif annotation is Self and arguments.get(Self) is not Self:
            annotation = arguments.get(Self, Any)
        elif get_origin(annotation) is Annotated:
            annotation = annotation.__origin__
        elif hasattr(annotation, "__supertype__"):
            annotation = annotation.__supertype__
        elif type(annotation).__name__ == "TypeAliasType":  # not in typing before Python 3.12
            annotation = annotation.__value__
        elif getattr(get_origin(annotation), "_name", None) in {"Required", "NotRequired", "ReadOnly"}:
            (annotation,) = get_args(annotation)
        else:
            return annotation
    return Any


def bound_of(variable: TypeVar) -> Any:
    """Return the default meaning of a type variable: its bound, its constraints, or Any."""
    if variable.__constraints__:
        return Union[variable.__constraints__]  # noqa: UP007 - of as many as there are
    bound = variable.__bound__
    if isinstance(bound, ForwardRef):
        scope = vars(sys.modules[variable.__module__]) if variable.__module__ in sys.modules else {}
        return _hints(types.SimpleNamespace(__annotations__={"bound": bound}), scope).get("bound", Any)
    return Any if bound is None else bound


def _record_fields(cls: Any) -> dict[str, Any]:
    if issubclass(cls, BaseModel):
        return {name: field.annotation for name, field in cls.model_fields.items()}
    hints = _hints(cls)
    return {field.name: hints.get(field.name, Any) for field in fields(cls)}


def _typed_dict_fields(cls: Any) -> dict[str, Any]:
    return _hints(cls)


def _hints(cls: Any, scope: dict[str, Any] | None = None) -> dict[str, Any]:
    try:
        return get_type_hints(cls, scope, include_extras=True)
    except Exception:  # noqa: BLE001 - annotations are the caller's code; what cannot be read is not judged
        return {}


def _is_instance(cls: type | tuple[type, ...], value: Any) -> bool:
    try:
        return isinstance(value, cls)
    except TypeError:  # a protocol without isinstance; instances of classes are let through
        return type(value) not in _PLAIN


def _is_choice(choices: tuple[Any, ...], value: Any) -> bool:
    return any(type(each) is type(value) and each == value for each in choices)


def _is_any(checks: list[Check], value: Any) -> bool:
    return any(check(value) for check in checks)


def _is_record(cls: type, checks: Mapping[str, Check], value: Any) -> bool:
    return isinstance(value, cls) and all(
        check(getattr(value, name)) for name, check in checks.items() if hasattr(value, name)
    )


def _has_members(required: frozenset[str], checks: Mapping[str, Check], value: Any) -> bool:
    return (
        isinstance(value, dict)
        and value.keys() >= required
        and all(check(value[name]) for name, check in checks.items() if name in value)
    )


def _is_mapping(cls: type, key: Check | None, member: Check | None, value: Any) -> bool:
    return (
        isinstance(value, cls)
        and isinstance(value, Mapping)
        and (key is None or all(map(key, value)))
        and (member is None or all(map(member, value.values())))
    )


def _is_tuple(members: list[Check | None], value: Any) -> bool:
    return (
        isinstance(value, tuple)
        and len(value) == len(members)
        and all(check is None or check(each) for check, each in zip(members, value, strict=True))
    )


def _is_collection(cls: type, member: Check, value: Any) -> bool:
    return isinstance(value, cls) and (not isinstance(value, _HOLDERS) or all(map(member, value)))
