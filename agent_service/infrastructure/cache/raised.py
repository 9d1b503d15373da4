"""Exceptions as cached results, for loads that chose some: ``cache_exceptions={NotFound: 30}``.

What is stored is the class's name and the arguments. Only a class that the reader itself names is ever made from it, by
that name; no other class is imported or looked up. An exception whose class does not give an equal one back when called
with its arguments is not cached.
"""

from collections.abc import Iterable
from typing import Any

__all__ = ["describe", "rebuild"]


def describe(exc: Exception, chosen: Iterable[type[Exception]]) -> list[Any] | None:
    """Give what is stored for an exception; None when it would not come back as it is."""
    described = [_name(type(exc)), list(exc.args)]
    twin = rebuild(described, chosen)
    return described if type(twin) is type(exc) and twin.args == exc.args else None


def rebuild(described: Any, chosen: Iterable[type[Exception]]) -> Exception | None:
    """Give the exception that is described, if its class is among the chosen ones."""
    name, args = described
    for each in chosen:
        if _name(each) == name:
            try:
                return each(*args)
            except Exception:  # noqa: BLE001 - the class changed since; the entry counts as a miss
                return None
    return None


def _name(kind: type[Exception]) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"
