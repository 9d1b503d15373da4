"""Rebuild what an annotation promises from plain data, which is all that some stored bytes hold.

The first release wrote every dataclass, pydantic model, Enum member and NamedTuple of an unregistered class as plain
data, and registered classes and states are still written so. The annotation tells the classes: :func:`restorer` turns
it into a function that restores them, and nothing else. Data under a plain annotation (``str``, ``dict[str, int]``) is
not checked or coerced. The fields of pydantic models must have their types, because validators do not run.

A record fits only data with exactly the fields that are written for it, so data that an older release of a service
left is refused instead of half understood. In a union the member that fits is taken; if two fit, nothing is guessed.
"""

import types
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from functools import cache, partial
from typing import (
    Any,
    Literal,
    TypeAlias,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

from pydantic import BaseModel
from typing_extensions import is_typeddict

from agent_service.core.values import rebuild
from agent_service.core.values.conformity import Check, conforms, unwrapped
from agent_service.core.values.instances import assembler
from agent_service.core.values.rebuild import Rebuild

__all__ = ["Compiler", "checks_of", "record_hints", "restorer"]

TypeArguments: TypeAlias = Mapping[Any, Any]
"""The types that the type variables of a generic class stand for."""

_UNREADABLE = (NameError, TypeError, AttributeError, SyntaxError, RuntimeError)
"""What reading annotations raises; RuntimeError comes from pydantic, and from a too deep recursion."""
_CONTAINERS = frozenset({dict, list, tuple, set, frozenset, object})


def restorer(annotation: Any) -> Rebuild | None:
    """Return a function that rebuilds the annotation's classes from plain data; None if there is nothing to rebuild.

    Values that already are of the annotated class pass through it. It raises
    :class:`~agent_service.core.errors.UndecodableError` for data that does not fit the annotation.
    """
    try:
        return Compiler().compile(annotation, {})
    except _UNREADABLE:
        return None


class Compiler:
    """Turns annotations into functions, each record once, so that a record may contain itself."""

    def __init__(self) -> None:
        self._records: dict[Any, Rebuild | None] = {}

    def compile(self, annotation: Any, arguments: TypeArguments) -> Rebuild | None:
        """Return a function that rebuilds an annotation; None if there is nothing to rebuild."""
        annotation = unwrapped(annotation, arguments)
        origin = get_origin(annotation)
        if origin is Union or origin is types.UnionType:
            return self.union(get_args(annotation), arguments)
        if origin is Literal:
            choices = get_args(annotation)
            return _literal(choices) if any(isinstance(each, Enum) for each in choices) else None
        cls = origin or annotation
        if not isinstance(cls, type):
            return None
        if issubclass(cls, Enum):
            return partial(rebuild.enum_member, cls)
        if is_typeddict(cls) or is_dataclass(cls) or issubclass(cls, BaseModel) or _is_named_tuple(cls):
            return self._record(cls, tuple(unwrapped(each, arguments) for each in get_args(annotation)))
        return self._container(cls, get_args(annotation), arguments)

    def _record(self, cls: type, given: tuple[Any, ...]) -> Rebuild | None:
        known = (cls, given)
        if known not in self._records:
            pending = rebuild.Pending()
            self._records[known] = pending
            self._records[known] = pending.rebuild = self._compile_record(cls, given)
        return self._records[known]

    def _compile_record(self, cls: type, given: tuple[Any, ...]) -> Rebuild | None:
        arguments = dict(zip(getattr(cls, "__parameters__", ()), given, strict=False))
        hints = record_hints(cls)
        compiled = {name: self.compile(hint, arguments) for name, hint in hints.items()}
        changing = {name: each for name, each in compiled.items() if each is not None}
        if is_typeddict(cls):
            return partial(rebuild.typed_dict, changing, vars(cls)["__required_keys__"]) if changing else None
        if issubclass(cls, BaseModel):
            return self.model(cls, changing, hints)
        for name, hint in hints.items():  # a plain Literal needs no rebuilding, but may distinguish members of a union
            if get_origin(hint) is Literal:
                changing[name] = _literal(get_args(hint))
        if is_dataclass(cls):
            init = {each.name: each.init for each in fields(cls)}
            return partial(rebuild.dataclass, cls, init, changing, assembler(cls))
        return partial(rebuild.named_tuple, cls, changing)

    def model(self, cls: type[BaseModel], changing: Mapping[str, Rebuild], hints: Mapping[str, Any]) -> Rebuild:
        """Return a function that rebuilds a model, given those of its fields."""
        return partial(rebuild.model, cls, changing, checks_of(hints), assembler(cls))

    def _container(self, cls: type, given: tuple[Any, ...], arguments: TypeArguments) -> Rebuild | None:
        members = [self.compile(each, arguments) for each in given if each is not Ellipsis]
        if not any(members):
            return None
        parts = [each or rebuild.unchanged for each in members]
        if issubclass(cls, Mapping):
            return partial(rebuild.mapping, *parts) if len(parts) == 2 else None
        if cls is tuple and Ellipsis not in given:
            return partial(rebuild.fixed_tuple, parts)
        return partial(rebuild.collection, parts[0]) if issubclass(cls, Iterable) and len(parts) == 1 else None

    def union(self, members: tuple[Any, ...], arguments: TypeArguments) -> Rebuild | None:
        """Return a function that rebuilds a union."""
        compiled = [(unwrapped(member, arguments), self.compile(member, arguments)) for member in members]
        rebuilds = [each for _, each in compiled if each is not None]
        plain = [member for member, each in compiled if each is None]
        scalars = frozenset(each for each in plain if isinstance(each, type)) - _CONTAINERS
        checks = cache(lambda: [conforms(member) or _anything for member in plain])
        return partial(rebuild.union, rebuilds, scalars, len(plain) > len(scalars), checks) if rebuilds else None


def _anything(_data: Any) -> bool:
    return True


def _is_named_tuple(cls: type) -> bool:
    return issubclass(cls, tuple) and hasattr(cls, "_fields")


def record_hints(cls: type) -> dict[str, Any]:
    """Return the annotations of a record's fields.

    :raises Exception: one of several, when they cannot be read.
    """
    if issubclass(cls, BaseModel):
        cls.model_rebuild()
        return {name: field.annotation for name, field in cls.model_fields.items()}
    hints = get_type_hints(cls, include_extras=True)
    if not is_dataclass(cls):
        return hints
    return {field.name: hints[field.name] for field in fields(cls)}


def checks_of(hints: Mapping[str, Any]) -> Callable[[], Mapping[str, Check]]:
    """Return a function that returns the checks of fields, made when first needed."""
    return cache(lambda: {name: check for name, hint in hints.items() if (check := conforms(hint)) is not None})


def _literal(choices: tuple[Any, ...]) -> Rebuild:
    return partial(rebuild.literal, {each.value if isinstance(each, Enum) else each: each for each in choices})
