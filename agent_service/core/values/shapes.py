"""How stored bytes describe a record's class: its name, and a digest that changes when its fields change."""

import hashlib
import re
import sys
import types
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from enum import Enum
from pathlib import PurePath
from typing import Any, Literal, TypeVar, Union, get_args, get_origin
from weakref import WeakKeyDictionary

from pydantic import BaseModel

__all__ = ["class_name", "classes_described", "shape_of"]

_ADDRESS = re.compile(r"\bat 0x[0-9a-fA-F]+|<function|<bound|<built-in")
_described = 0
_shapes: WeakKeyDictionary[type, str] = WeakKeyDictionary()


def class_name(cls: type) -> str:
    """Return a class's module and qualified name, the same for a module that is run and one that is imported."""
    module = cls.__module__
    return f"{_main_module() if module == '__main__' else module}.{cls.__qualname__}"


def _main_module() -> str:
    main = sys.modules["__main__"]
    spec = getattr(main, "__spec__", None)
    if spec is not None:
        name: str = spec.name
        return name.removesuffix(".__main__")
    file = getattr(main, "__file__", None)
    return "__main__" if file is None else PurePath(file).stem


def shape_of(cls: type) -> str:
    """Return a digest of a record's fields, their types and constraints; the same in every process and release.

    Enums have no digest: their members are compared one by one.
    """
    global _described
    shape = _shapes.get(cls)
    if shape is None:
        described = "" if issubclass(cls, Enum) else "\n".join(_describe(cls))
        _described += 1
        shape = _shapes[cls] = hashlib.sha256(described.encode()).hexdigest()[:10] if described else ""
    return shape


def classes_described() -> int:
    """Return how many classes were seen so far; grows when a class is written for the first time."""
    return _described


def _describe(cls: Any) -> Iterator[str]:
    if issubclass(cls, BaseModel):
        yield f"model {cls.model_config.get('extra')}"
        for name, field in cls.model_fields.items():
            limits = [text for each in field.metadata if not _ADDRESS.search(text := repr(each))]
            yield f"{name}: {_text(field.annotation)} {limits}"
        yield from sorted(cls.__private_attributes__)
    elif is_dataclass(cls):
        yield "dataclass"
        for each in fields(cls):
            yield f"{each.name}: {_text(each.type)}"
    else:
        yield "tuple"
        annotations = _annotations(cls)
        for name in cls._fields:
            yield f"{name}: {_text(annotations.get(name))}"


def _annotations(cls: Any) -> dict[str, Any]:
    for each in cls.__mro__:
        if "_fields" in vars(each):
            try:
                return dict(vars(each).get("__annotations__") or getattr(each, "__annotations__", {}))
            except NameError:
                break
    return {}


def _text(annotation: Any) -> str:
    """Return an annotation as text, the same in every version of Python."""
    if isinstance(annotation, str):
        return annotation
    if isinstance(annotation, list):  # the parameters of a Callable
        return f"[{', '.join(map(_text, annotation))}]"
    origin = get_origin(annotation)
    if origin is Literal:
        return f"Literal{[_choice(each) for each in get_args(annotation)]}"
    if origin is not None:
        name = "Union" if origin is Union or origin is types.UnionType else _text(origin)
        return f"{name}[{', '.join(map(_text, get_args(annotation)))}]"
    if isinstance(annotation, type):
        return "None" if annotation is types.NoneType else class_name(annotation)
    if isinstance(annotation, TypeVar):
        return annotation.__name__
    supertype = getattr(annotation, "__supertype__", None) or getattr(annotation, "__value__", None)
    if supertype is not None:
        return _text(supertype)
    text = getattr(annotation, "__forward_arg__", None) or repr(annotation)
    return "" if _ADDRESS.search(text) else text


def _choice(choice: Any) -> str:
    return f"{class_name(type(choice))}.{choice.name}" if isinstance(choice, Enum) else repr(choice)
