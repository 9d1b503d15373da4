"""Identity of arguments: an encoding that differs wherever a function could see a difference.

Each value is written as a letter for its type, its length and its content, so no two different values share their
bytes: ``1``, ``True``, ``"1"``, ``1.0``, ``b"1"``, ``(1,)`` and ``[1]`` differ, and so do ``0.0`` and ``-0.0``, or one
moment in two time zones. Dicts and sets are written in the order of their encoded members: equal ones may iterate
differently.
No ``repr`` and no memory address is ever used: a value without a stable identity is refused.

A class, and the class of an object, is identified by its module and qualified name. Two classes made by two calls of
one function share that name; give their objects a ``__cache_key__()`` that differs.
"""

import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields, is_dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from hashlib import blake2b
from pathlib import PosixPath, PurePath, PurePosixPath, PureWindowsPath, WindowsPath
from typing import Any, Final
from uuid import UUID

from pydantic import BaseModel

from agent_service.core.errors import CacheKeyError
from agent_service.core.fixed import FixedDict, FixedList

__all__ = ["MAX_DEPTH", "CallDigest", "encode_argument", "identity_digest"]

MAX_DEPTH: Final = 100
"""Deepest nesting of an argument."""

_DIGEST_BYTES = 16
_TOO_DEEP = f"contains itself, or nests deeper than {MAX_DEPTH} levels"
_DOUBLE = struct.Struct(">d")
_PATHS = frozenset({PosixPath, PurePosixPath, PureWindowsPath, WindowsPath})


class _Unstable(Exception):  # noqa: N818  (never leaves the module, see encode_argument)
    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.steps: list[str] = []


class CallDigest:
    """Digests the arguments of one function.

    :param function_name: tells the function from all others.
    :param names: of its parameters.
    """

    def __init__(self, function_name: str, names: Sequence[str]) -> None:
        self._head = _digest_head(function_name)
        self._names = names
        self._labels = tuple(f"{name}=".encode() for name in names)

    def __call__(self, values: Sequence[Any], context: str = "") -> str:
        """Return 128 bits in hexadecimal: equal for equal values, different for others of this or any function.

        :param values: one for each name, in order.
        :param context: distinguishes calls beside the arguments.
        :raises CacheKeyError: naming the argument that has no stable identity, and the remedy.
        """
        parts = [self._head]
        for label, name, value in zip(self._labels, self._names, values, strict=True):
            parts += (label, encode_argument(value, name))
        if context:
            parts.append(f"*{context}".encode())  # no label of a parameter begins like this
        return blake2b(b"".join(parts), digest_size=_DIGEST_BYTES).hexdigest()


def identity_digest(function_name: str, arguments: bytes) -> str:
    """Return 128 bits in hexadecimal that belong to these encoded arguments of this function alone."""
    return blake2b(_digest_head(function_name) + arguments, digest_size=_DIGEST_BYTES).hexdigest()


def _digest_head(function_name: str) -> bytes:
    name = function_name.encode("utf-8", "surrogatepass")
    return b"%d:%b" % (len(name), name)


def encode_argument(value: Any, name: str, *, kind: str = "argument", remedy: str | None = None) -> bytes:
    """Return the identity of an argument.

    Known are None, bool, int, float, complex, str, bytes, bytearray, Decimal, UUID, range, paths, the types of
    :mod:`datetime`, Enum members, tuples, lists, sets, frozensets, dicts, NamedTuples, dataclasses and pydantic models
    by their fields, classes by name, and objects with ``__cache_key__()``, which returns something of this list.

    :param name: what the argument is called in an error.
    :param kind: what an error calls such a value.
    :param remedy: what an error advises; None: the advice for an argument.
    :raises CacheKeyError: for any other type, and for a value that contains itself.
    """
    try:
        return _encode(value, 0)
    except (_Unstable, RecursionError) as exc:
        steps = "".join(reversed(exc.steps)) if isinstance(exc, _Unstable) else ""
        reason = str(exc) if isinstance(exc, _Unstable) else _TOO_DEEP
        raise CacheKeyError(
            f"{kind} {name!r} has no stable identity to make a cache key from: {name}{steps:.200} {reason}; "
            + (
                remedy
                or f"give it a __cache_key__() method, leave it out with ignore=({name!r},), or name the key with key="
            )
        ) from exc.__cause__


def _encode(value: Any, depth: int) -> bytes:
    if depth > MAX_DEPTH:
        raise _Unstable(_TOO_DEEP)
    kind = type(value)
    atom = _ATOMS.get(kind)
    if atom is not None:
        return atom(value)
    composite = _COMPOSITES.get(kind)
    return composite(value, depth + 1) if composite is not None else _encode_object(value, depth + 1)


def _framed(tag: bytes, content: bytes) -> bytes:
    return b"%b%d:%b" % (tag, len(content), content)


def _text(value: str) -> bytes:
    return value.encode("utf-8", "surrogatepass")


def _int(value: int) -> bytes:
    return value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True)


def _float(value: float) -> bytes:
    return _DOUBLE.pack(value) if value == value else b"nan"  # noqa: PLR0124  (all NaN are one argument)


def _stamp(value: datetime | time) -> bytes:
    zone = value.tzinfo
    parts = [value.replace(tzinfo=None, fold=0).isoformat(), str(value.fold)]
    if zone is not None:
        name = getattr(zone, "key", None) or getattr(zone, "zone", None)
        offset = value.utcoffset()
        parts += (_class_name(type(zone)), str(name), str(value.tzname()), "" if offset is None else str(offset))
    return _joined(_framed(b"s", _text(part)) for part in parts)


def _joined(parts: Iterable[bytes]) -> bytes:
    return b"".join(parts)


def _class_name(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


def _members(values: Iterable[Any], depth: int, step: Callable[[int], str] = "[{}]".format) -> list[bytes]:
    encoded: list[bytes] = []
    try:
        for value in values:
            encoded.append(_encode(value, depth))  # noqa: PERF401  (the length tells where it failed)
    except _Unstable as unstable:
        unstable.steps.append(step(len(encoded)))
        raise
    return encoded


def _counted(tag: bytes, encoded: list[bytes]) -> bytes:
    return b"%b%d:%b" % (tag, len(encoded), b"".join(encoded))


def _unordered(tag: bytes, values: Iterable[Any], depth: int) -> bytes:
    return _counted(tag, sorted(_members(values, depth, lambda _: "<element>")))


def _dict(value: dict[Any, Any], depth: int) -> bytes:
    keys = _members(value, depth, lambda _: "<key>")
    names = list(value)
    members = _members(value.values(), depth, lambda index: f"[{names[index]!r:.80}]")
    return _counted(b"d", sorted(key + member for key, member in zip(keys, members, strict=True)))


def _record(tag: bytes, cls: type, content: dict[str, Any], depth: int) -> bytes:
    names = list(content)
    members = _members(content.values(), depth, lambda index: f".{names[index]}")
    named = (_framed(b"s", _text(name)) + member for name, member in zip(names, members, strict=True))
    return _framed(tag, _text(_class_name(cls))) + _counted(b"d", sorted(named))


def _encode_object(value: Any, depth: int) -> bytes:
    kind = type(value)
    if hasattr(kind, "__cache_key__"):
        return _framed(b"O", _text(_class_name(kind))) + _encode(_own_key(value), depth)
    if isinstance(value, type):
        return _framed(b"C", _text(_class_name(value)))
    if isinstance(value, Enum):
        return _framed(b"E", _text(_class_name(kind))) + _encode(value.name or value.value, depth)
    if isinstance(value, BaseModel):
        known = {name: value.__dict__[name] for name in kind.model_fields if name in value.__dict__}
        return _record(b"M", kind, known | (value.__pydantic_extra__ or {}), depth)
    if is_dataclass(value):
        return _record(b"D", kind, {each.name: getattr(value, each.name) for each in fields(value)}, depth)
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return _framed(b"N", _text(_class_name(kind))) + _counted(b"t", _members(value, depth))
    raise _Unstable(f"is a {_class_name(kind)}")


def _own_key(value: Any) -> Any:
    try:
        return type(value).__cache_key__(value)
    except Exception as exc:
        raise _Unstable(f"has a __cache_key__() that raised {type(exc).__name__}") from exc


_ATOMS: Final[dict[type, Callable[[Any], bytes]]] = {
    type(None): lambda _: b"z",
    bool: lambda value: b"T" if value else b"F",
    int: lambda value: _framed(b"i", _int(value)),
    str: lambda value: _framed(b"s", _text(value)),
    float: lambda value: _framed(b"f", _float(value)),
    complex: lambda value: _framed(b"c", _framed(b"f", _float(value.real)) + _framed(b"f", _float(value.imag))),
    bytes: lambda value: _framed(b"b", value),
    bytearray: lambda value: _framed(b"a", bytes(value)),
    UUID: lambda value: _framed(b"u", value.bytes),
    Decimal: lambda value: _framed(b"n", _text(str(value))),
    datetime: lambda value: _framed(b"y", _stamp(value)),
    date: lambda value: _framed(b"x", _text(value.isoformat())),
    time: lambda value: _framed(b"w", _stamp(value)),
    timedelta: lambda value: _framed(b"v", b"%d,%d,%d" % (value.days, value.seconds, value.microseconds)),
    range: lambda value: _framed(b"r", _joined(_framed(b"i", _int(n)) for n in (value.start, value.stop, value.step))),
}

_COMPOSITES: Final[dict[type, Callable[[Any, int], bytes]]] = {
    tuple: lambda value, depth: _counted(b"t", _members(value, depth)),
    list: lambda value, depth: _counted(b"l", _members(value, depth)),
    set: lambda value, depth: _unordered(b"e", value, depth),
    frozenset: lambda value, depth: _unordered(b"g", value, depth),
    dict: _dict,
}
_COMPOSITES.update({FixedDict: _dict, FixedList: _COMPOSITES[list]})  # which are what they hold


def _path(value: PurePath) -> bytes:
    return _framed(b"p", _text(f"{type(value).__name__}:{value}"))


_ATOMS.update(dict.fromkeys(_PATHS, _path))
