"""Restore stored results as what the function's return annotation promises."""

import functools
import sys
import types
import typing
from collections.abc import Callable
from typing import Any

import typing_extensions

from agent_service.core.codec import encode
from agent_service.core.errors import UndecodableError
from agent_service.core.values.conformity import Check, conforms
from agent_service.core.values.known import names_classes
from agent_service.core.values.rebuild import Rebuild
from agent_service.core.values.stored import Stored, Wanted
from agent_service.core.values.typed import restorer

__all__ = ["Returned"]


class Returned:
    """The return annotation of a function, resolved without the annotations of its parameters.

    If it names something not yet defined, it is resolved again at the first result, and at each that needs it.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self._wanted: Wanted | None = None
        self._rebuild: Rebuild | None = None
        self._check: Check | None = None
        self.names_classes = True
        """Whether instances of classes are restored; False if all is plain data, as under Any."""
        self.unresolved: str | None = None
        """Why the annotation cannot be resolved; None when it can, or there is none."""
        self.rebuilds = False
        """Whether results that hold no class of their own may need rebuilding all the same."""
        self._resolve()
        self._is_first = True

    def _resolve(self) -> None:
        try:
            annotation = _annotation_of(self._function)
            self_class = _class_of(self._function) if _mentions_self(annotation) else None
        except Exception as exc:  # noqa: BLE001 - evaluating an annotation runs the caller's code
            self.unresolved = f"{type(exc).__name__}: {exc!s:.200}"
            self.rebuilds = True
            return
        self.unresolved = None
        self.names_classes = names_classes(annotation)
        if self.names_classes:
            self._wanted = Wanted(annotation, self_class)
            self._rebuild = restorer(annotation)
            self._check = conforms(annotation, self_class)
        self.rebuilds = self._rebuild is not None

    def __call__(self, data: Any) -> Any:
        """Return a decoded result as what the annotation promises.

        :raises UndecodableError: if the result does not fit, or holds instances while the annotation is unresolved.
        """
        if self.unresolved is not None and (self._is_first or type(data) is Stored):
            self._is_first = False
            self._resolve()
        if type(data) is not Stored:
            return data if self._rebuild is None else self._rebuild(data)
        if self.unresolved is not None:
            raise UndecodableError(f"the return annotation cannot be resolved ({self.unresolved})")
        return data.as_wanted(self._wanted)

    def require_kept(self, data: Any, result: Any) -> None:
        """Refuse plain data that met the annotation as it was and became an instance, as a dict in ``User | dict`` can.

        :param data: what was decoded of a value that has just been returned; stored data may be of another release,
            in which the same stands for an instance.
        :param result: what :meth:`__call__` made of it.
        :raises UndecodableError: for such data.
        """
        if type(data) is Stored or self._rebuild is None or (self._check is not None and not self._check(data)):
            return
        if encode(result, keep_classes=True, annotated=True)[1]:
            raise UndecodableError(
                "it is plain data with the fields of a class that the annotation names beside plain data, and would "
                "become an instance; return an instance, or name one of the two"
            )


def _annotation_of(function: Callable[..., Any]) -> Any:
    """Return the resolved return annotation; Any where there is none.

    :raises Exception: whatever its evaluation raises.
    """
    raw = _raw_annotation(function)
    holder = types.SimpleNamespace(__annotations__={"return": raw})
    resolved: Any = typing.get_type_hints(holder, *_scopes(function), include_extras=True)["return"]
    return resolved


def _raw_annotation(function: Callable[..., Any]) -> Any:
    try:
        return function.__annotations__.get("return", Any)
    except AttributeError:
        return Any
    except NameError:  # from Python 3.14 on annotations are evaluated together, when they are asked for
        if sys.version_info >= (3, 14):
            import annotationlib  # noqa: PLC0415 - not there before Python 3.14

            annotations = annotationlib.get_annotations(function, format=annotationlib.Format.FORWARDREF)
            return annotations.get("return", Any)
        raise


def _mentions_self(annotation: Any) -> bool:
    return annotation is typing_extensions.Self or any(map(_mentions_self, typing.get_args(annotation)))


def _class_of(function: Callable[..., Any]) -> type:
    """Return the class that a method was written in.

    :raises NameError: when its module does not have it, or not yet.
    """
    scope, names = _scopes(function)
    found: Any = None
    for place, name in enumerate(function.__qualname__.split(".")[:-1]):
        found = getattr(found, name, None) if place else names.get(name, scope.get(name))
    if not isinstance(found, type):
        raise NameError(f"Self stands for the class of {function.__qualname__}, which its module does not have")  # noqa: TRY004
    return found


def _scopes(function: Callable[..., Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the globals of the innermost wrapped function, and what it closes over: local classes that it uses."""
    while True:
        if isinstance(function, functools.partial):
            function = function.func
        elif hasattr(function, "__wrapped__"):
            function = function.__wrapped__
        else:
            break
    code, cells = getattr(function, "__code__", None), getattr(function, "__closure__", None) or ()
    names = {each.__name__: each for each in getattr(function, "__type_params__", ())}
    for name, cell in zip(code.co_freevars if code is not None else (), cells, strict=True):
        try:
            names[name] = cell.cell_contents
        except ValueError:  # not assigned yet
            continue
    return getattr(function, "__globals__", {}), names
