"""What is stored in place of a result that is not for every reader: exceptions, and what belongs to one context.

An exception that a load chose, ``cache_exceptions={NotFound: 30}``, is stored as its class's name and its arguments.
Only a class that the reader itself names is ever made from it, by that name; no other class is imported or looked up.
An exception whose class does not give an equal one back when called with its arguments is not cached.

A result of ``get_or_load(key, loader, context=[...])`` is stored with the digest of the values of these variables,
and so is an exception then: the key does not tell them, so the reader must. What is described is ``[name, arguments]``
or ``[name, arguments, digest]``; a value stands in the place of the arguments of a class without a name.
"""

from collections.abc import Iterable
from typing import Any, Final

from agent_service.core.errors import UndecodableError

__all__ = ["describe", "describe_value", "interpret"]

_VALUE: Final = ""


def describe(exc: Exception, chosen: Iterable[type[Exception]], seen: str) -> list[Any] | None:
    """Return what is stored for an exception; None when it would not come back as it is.

    :param seen: the digest of the context that it belongs to; empty: to all.
    """
    described = [_name(type(exc)), list(exc.args), *([seen] if seen else ())]
    twin = interpret(described, chosen, seen)
    return described if isinstance(twin, Exception) and type(twin) is type(exc) and twin.args == exc.args else None


def describe_value(value: Any, seen: str) -> list[Any]:
    """Return what is stored for a value that belongs to one context."""
    return [_VALUE, value, seen]


def interpret(described: Any, chosen: Iterable[type[Exception]], seen: str) -> Exception | tuple[Any] | None:
    """Return the exception that is described, if its class is among the chosen ones, or the value, in a tuple.

    :param seen: the digest of the reader's context; what belongs to another one is None.
    :raises UndecodableError: for what was not described here, and for a class that changed since.
    """
    if type(described) is not list or not 2 <= len(described) <= 3 or type(described[0]) is not str:
        raise UndecodableError("stored data does not describe an exception or a value of a context")
    name, content, *belongs = described
    if belongs != ([seen] if seen else []):
        return None
    if name == _VALUE:
        return (content,)
    if type(content) is not list:
        raise UndecodableError("stored data does not describe the arguments of an exception")
    for each in chosen:
        if _name(each) == name:
            return _call(each, content)
    return None


def _call(kind: type[Exception], arguments: list[Any]) -> Exception:
    try:
        made = kind(*arguments)
    except Exception as exc:  # whatever the class raises: it changed since, or the arguments are somebody else's
        raise UndecodableError(f"stored data does not make a {kind.__qualname__}: {type(exc).__name__}") from exc
    if type(made) is not kind:
        raise UndecodableError(f"stored data does not make a {kind.__qualname__}")
    return made


def _name(kind: type[Exception]) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"
