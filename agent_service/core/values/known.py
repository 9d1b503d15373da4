"""The classes that stored bytes may become: those that an annotation names, those of their fields, and subclasses.

Stored bytes name classes, but a name only selects among the classes that the reader named and that exist already.
"""

import types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from typing import Any, Final, Literal, Self, TypeVar, get_args, get_origin, get_type_hints
from weakref import WeakSet

from pydantic import BaseModel
from typing_extensions import is_typeddict

from agent_service.core.errors import UndecodableError
from agent_service.core.memo import Memo, size_of
from agent_service.core.values.conformity import bound_of, unwrapped
from agent_service.core.values.instances import Assemble, assembler, is_record
from agent_service.core.values.shapes import class_name, classes_described, shape_of

__all__ = ["Assembly", "KnownClasses", "names_classes"]

_MOST_RESOLVED = 1024
_MOST_NAMED: Final = 1000
"""The most classes in one value, as in the writer. Stored bytes may be hostile, and each name is looked up."""
_UNNAMED = (object, types.NoneType, types.UnionType, type)
_ANYTHING = (Any, object, dict, list, tuple, set, frozenset)
_MANY = {"typing", "typing_extensions", "collections.abc", "abc"}
"""Modules whose classes tell nothing about a value's class."""


def names_classes(annotation: Any) -> bool:
    """Return whether an annotation tells the class of instances: it names one, or does not accept everything."""
    if any(each.__module__ != "builtins" for each in _classes_in(annotation, set())):
        return True
    return not _takes_anything(annotation)


def _takes_anything(annotation: Any) -> bool:
    annotation = unwrapped(annotation, {Self: Self})
    return annotation in _ANYTHING or any(map(_takes_anything, get_args(annotation)))


class KnownClasses:
    """The classes that an annotation names, looked up when they are first needed.

    :param annotation: of a value, or a class.
    """

    def __init__(self, annotation: Any) -> None:
        self._annotation = annotation
        self._roots: list[type] | None = None
        self._found: dict[tuple[str, str], Assemble] = {}
        self._resolved: Memo[tuple[tuple[str, ...], ...], tuple[list[Assemble | None], int]] = Memo(_MOST_RESOLVED)

    def resolve(self, named: list[list[str]]) -> "list[Assemble | None]":
        """Return a function for each named class that makes its instances; None for a class that is not known.

        :raises UndecodableError: if a class has changed since.
        """
        key = tuple(map(tuple, named))
        resolved = self._resolved.known.get(key)
        if resolved is None or (resolved[1] != classes_described() and None in resolved[0]):
            # A class that is not found may be defined later; it is looked up again once an instance of it is written.
            resolved = self._look_for(named), classes_described()
            self._resolved.keep(key, resolved, size_of(text for each in key for text in each))
        return resolved[0]

    def _look_for(self, named: list[list[str]]) -> "list[Assemble | None]":
        if not all(type(text) is str for each in named for text in each):
            raise TypeError("a list of class names and shapes is expected")
        if len(named) > _MOST_NAMED:
            raise UndecodableError(f"stored data names {len(named)} classes, at most {_MOST_NAMED} are allowed")
        found = [self._found.get((name, shape)) for name, shape in named]
        while None in found:
            known = len(self._reachable())
            derived = self._derived()
            found = [each or self._find(name, shape, derived) for each, (name, shape) in zip(found, named, strict=True)]
            if len(self._reachable()) == known:
                break
        return found

    def _derived(self) -> Mapping[str, list[type]]:
        """Return the reachable classes and their subclasses by name, bases and earlier definitions first."""
        derived: dict[str, list[type]] = {}
        for root in self._reachable():
            for each in _subclasses(root):
                derived.setdefault(class_name(each), []).append(each)
        return derived

    def _reachable(self) -> list[type]:
        if self._roots is None:
            self._roots = []
            self._add(self._annotation)
        return self._roots

    def _add(self, annotation: Any) -> None:
        roots = self._roots
        assert roots is not None
        for each in _classes_in(annotation, set()):
            if each not in roots:
                roots.append(each)

    def _find(self, name: str, shape: str, derived: Mapping[str, list[type]]) -> Assemble | None:
        roots = self._reachable()
        exact = [each for each in roots if class_name(each) == name and is_record(each)] or derived.get(name, [])
        if not exact:
            return None
        cls = next((each for each in reversed(exact) if is_record(each) and shape_of(each) == shape), None)
        if cls is None:
            raise UndecodableError(f"stored data is of the class {name} as it was before it changed")
        self._add(cls)
        assemble = self._found[name, shape] = assembler(cls)
        return assemble


class Assembly:
    """How the classes of one stored value are assembled.

    ``unknown`` lists afterwards the classes whose instances came back as plain data. ``strict`` means that the reader
    wants instances, so that this may only happen where an annotation asks for plain data.
    """

    __slots__ = ("_assemblers", "_inside", "_named", "strict", "unknown")

    def __init__(self, named: Any, known: KnownClasses | None) -> None:
        self._named = named
        self.strict = known is not None
        self._assemblers = [None] * len(named) if known is None else known.resolve(named)
        self._inside: dict[type, Assembly] | None = None
        self.unknown: list[str] = []

    def assemble(self, index: Any, data: Any, rest: dict[str, Any]) -> Any:
        """Return an instance of a class, or its data if the class is not known."""
        assemble = self._assemblers[index]
        if assemble is None:
            self.unknown.append(self._named[index][0])
            return data
        return assemble(data, rest)

    def inside(self, cls: type, known: KnownClasses) -> "Assembly":
        """Return how the members of an instance of a registered class are assembled."""
        if self._inside is None:
            self._inside = {}
        found = self._inside.get(cls)
        if found is None:
            found = self._inside[cls] = Assembly(self._named, known)
            found._assemblers = [
                ours or theirs for ours, theirs in zip(found._assemblers, self._assemblers, strict=True)
            ]
            found.unknown = self.unknown
            found.strict = self.strict
        return found


def _subclasses(root: type[Any]) -> Iterator[type[Any]]:
    """Iterate over the classes derived from a class, bases and earlier definitions first."""
    seen: WeakSet[type[Any]] = WeakSet()
    waiting = [root]
    while waiting:
        derived: list[type[Any]] = type.__subclasses__(waiting.pop(0))
        for each in derived:
            if each not in seen:
                seen.add(each)
                waiting.append(each)
                yield each


def _classes_in(annotation: Any, seen: set[int]) -> Iterator[type]:
    """Iterate over the classes an annotation names, and those that the annotations of their fields name."""
    if id(annotation) in seen:
        return
    seen.add(id(annotation))
    for each in _parts(annotation):
        yield from _classes_in(each, seen)
    if not isinstance(annotation, type) or annotation in _UNNAMED or annotation.__module__ in _MANY:
        return
    if not is_typeddict(annotation) and get_origin(annotation) is None:
        yield annotation
    for each in _field_annotations(annotation):
        yield from _classes_in(each, seen)


def _parts(annotation: Any) -> tuple[Any, ...]:
    if get_origin(annotation) is Literal:
        return tuple(type(each) for each in get_args(annotation) if isinstance(each, Enum))
    if isinstance(annotation, TypeVar):
        return (bound_of(annotation),)
    inside = getattr(annotation, "__supertype__", None)
    if type(annotation).__name__ == "TypeAliasType":  # not in typing before Python 3.12
        inside = annotation.__value__
    origin = get_origin(annotation)
    # Metadata for pydantic beside a type may be anything, and names no class of values.
    arguments = get_args(annotation)[:1] if origin is typing.Annotated else get_args(annotation)
    return tuple(each for each in (inside, origin, *arguments) if each is not None and each is not Ellipsis)


def _field_annotations(cls: Any) -> list[Any]:
    try:
        if issubclass(cls, Enum):
            return [type(each.value) for each in cls]
        if issubclass(cls, BaseModel):
            if not cls.__pydantic_complete__:
                cls.model_rebuild(raise_errors=False)
            return [*(field.annotation for field in cls.model_fields.values()), *_private_annotations(cls)]
        if is_dataclass(cls):
            hints = get_type_hints(cls)
            return [hints.get(field.name) for field in fields(cls)]
        if is_typeddict(cls) or (issubclass(cls, tuple) and hasattr(cls, "_fields")):
            return list(get_type_hints(cls).values())
    except Exception:  # noqa: BLE001 - annotations are the caller's code; a class that they hide is not known
        return []
    return []


def _private_annotations(cls: type[BaseModel]) -> list[Any]:
    if not cls.__private_attributes__:
        return []
    hints = get_type_hints(cls)
    return [hints[name] for name in cls.__private_attributes__ if name in hints]
