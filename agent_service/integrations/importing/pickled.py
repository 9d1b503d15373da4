"""Reading pickles as data: nothing is imported, called or built but plain values, so hostile bytes can do no more.

The older layout of ADK's tables keeps what an event does in pickles of pydantic models. Of such a model a dict of its
fields is returned. What is neither such a model nor a plain value of the standard library is refused.
"""

import pickletools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any, Final
from uuid import UUID

__all__ = ["NotPlainError", "read_pickle"]

_MOST_VALUES: Final = 200_000
"""Values that one pickle may come to: a few bytes can stand for any number, by repeating what was said before."""
_DEEPEST: Final = 200


class NotPlainError(ValueError):
    """A pickle is damaged, or holds what is no plain data; the message names no value."""


@dataclass(eq=False, slots=True)
class _Class:
    """A class, which is only named."""

    name: str


@dataclass(eq=False, slots=True)
class _Object:
    """What a class would be made with."""

    kind: _Class
    arguments: tuple[Any, ...]
    state: Any = None
    items: list[tuple[Any, Any]] = field(default_factory=list)


class _Set(list[Any]):
    """The elements of a set, which may be none that Python could hash yet."""


class _FrozenSet(_Set):
    """The same of a set that does not change."""


_MARK: Final = object()


def read_pickle(data: bytes) -> Any:
    """Return the plain value that a pickle holds.

    :raises NotPlainError: it holds anything else.
    """
    reader = _Reader()
    try:
        for opcode, argument, _ in pickletools.genops(data):
            if opcode.name == "STOP":
                return _Plain().of(reader.stack.pop())
            reader.take(opcode.name, argument)
    except NotPlainError:
        raise
    except (ValueError, TypeError, IndexError, KeyError, OverflowError, RecursionError, ArithmeticError) as exc:
        raise NotPlainError(f"the pickle is damaged ({type(exc).__name__})") from exc
    raise NotPlainError("the pickle is damaged (it has no end)")


class _Reader:
    """The machine that pickles are programs for, of which only what builds data is there."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self._memo: dict[int, Any] = {}

    def take(self, name: str, argument: Any) -> None:
        """Take a step."""
        if name in _CONSTANTS:
            self.stack.append(_CONSTANTS[name])
        elif name in _VALUES:
            self.stack.append(argument)
        elif name in _EMPTY:
            self.stack.append(_EMPTY[name]())
        elif name in {"PROTO", "FRAME"}:
            return
        else:
            step: Callable[[Any], None] | None = getattr(self, f"_do_{name.lower()}", None)
            if step is None:
                raise NotPlainError(f"the pickle does what plain data need not ({name})")
            step(argument)

    def _since_mark(self) -> list[Any]:
        place = len(self.stack) - 1
        while self.stack[place] is not _MARK:
            place -= 1
            if place < 0:
                raise IndexError("no mark")
        found = self.stack[place + 1 :]
        del self.stack[place:]
        return found

    def _do_mark(self, _: Any) -> None:
        self.stack.append(_MARK)

    def _do_pop(self, _: Any) -> None:
        self.stack.pop()

    def _do_memoize(self, _: Any) -> None:
        self._memo[len(self._memo)] = self.stack[-1]

    def _do_binput(self, place: int) -> None:
        self._memo[place] = self.stack[-1]

    _do_long_binput = _do_binput

    def _do_binget(self, place: int) -> None:
        self.stack.append(self._memo[place])

    _do_long_binget = _do_binget

    def _do_tuple(self, _: Any) -> None:
        self.stack.append(tuple(self._since_mark()))

    def _do_tuple1(self, _: Any) -> None:
        self._join(1)

    def _do_tuple2(self, _: Any) -> None:
        self._join(2)

    def _do_tuple3(self, _: Any) -> None:
        self._join(3)

    def _join(self, count: int) -> None:
        found = tuple(self.stack[-count:])
        if len(found) != count:
            raise IndexError("too few values")
        self.stack[-count:] = [found]

    def _do_frozenset(self, _: Any) -> None:
        self.stack.append(_FrozenSet(self._since_mark()))

    def _do_append(self, _: Any) -> None:
        value = self.stack.pop()
        _list(self.stack[-1]).append(value)

    def _do_appends(self, _: Any) -> None:
        values = self._since_mark()
        _list(self.stack[-1]).extend(values)

    def _do_additems(self, _: Any) -> None:
        values = self._since_mark()
        _list(self.stack[-1]).extend(values)

    def _do_setitem(self, _: Any) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._set(self.stack[-1], key, value)

    def _do_setitems(self, _: Any) -> None:
        values = self._since_mark()
        for key, value in zip(values[::2], values[1::2], strict=True):
            self._set(self.stack[-1], key, value)

    def _set(self, into: Any, key: Any, value: Any) -> None:
        if isinstance(into, _Object):
            into.items.append((key, value))
        elif isinstance(into, dict):
            into[key] = value
        else:
            raise NotPlainError("the pickle sets keys of what is no dict")

    def _do_global(self, named: str) -> None:
        name = named.replace(" ", ".", 1)
        self.stack.append(_Class(name.replace("__builtin__.", "builtins.", 1)))

    def _do_stack_global(self, _: Any) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        if not (isinstance(name, str) and isinstance(module, str)):
            raise NotPlainError("the pickle names a class by no text")
        self.stack.append(_Class(f"{module}.{name}"))

    def _do_newobj(self, _: Any) -> None:
        arguments, kind = self.stack.pop(), self.stack.pop()
        if not isinstance(kind, _Class) or not isinstance(arguments, tuple):
            raise NotPlainError("the pickle makes an object of no class")
        self.stack.append(_Object(kind, arguments))

    _do_reduce = _do_newobj

    def _do_build(self, _: Any) -> None:
        state = self.stack.pop()
        if not isinstance(self.stack[-1], _Object):
            raise NotPlainError("the pickle fills what is no object")
        self.stack[-1].state = state


_CONSTANTS: Final[Mapping[str, Any]] = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_VALUES: Final = frozenset(
    (
        "BININT", "BININT1", "BININT2", "INT", "LONG", "LONG1", "LONG4", "BINFLOAT", "FLOAT", "SHORT_BINUNICODE",
        "BINUNICODE", "BINUNICODE8", "UNICODE", "SHORT_BINBYTES", "BINBYTES", "BINBYTES8", "BYTEARRAY8",
    )
)  # fmt: skip
_EMPTY: Final[Mapping[str, Callable[[], Any]]] = {
    "EMPTY_DICT": dict,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
    "EMPTY_SET": _Set,
}


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise NotPlainError("the pickle appends to what is no list")
    return value


class _Plain:
    """Turns what was read into plain values."""

    def __init__(self) -> None:
        self._left = _MOST_VALUES

    def of(self, value: Any, depth: int = 0) -> Any:
        """Return the plain value."""
        self._left -= 1
        if self._left < 0 or depth > _DEEPEST:
            raise NotPlainError("the pickle comes to too many values, or is nested too deep")
        if isinstance(value, _Object):
            return self._object(value, depth + 1)
        if isinstance(value, _Class) or value is _MARK:
            raise NotPlainError("the pickle holds a class or function, which is no plain data")
        if isinstance(value, dict):
            return self._dict(value.items(), depth)
        if isinstance(value, _Set):
            made = frozenset if isinstance(value, _FrozenSet) else set
            return made(self.of(each, depth + 1) for each in value)
        if isinstance(value, list | tuple):
            return type(value)(self.of(each, depth + 1) for each in value)
        return value

    def _dict(self, items: Any, depth: int) -> dict[Any, Any]:
        return {self.of(key, depth + 1): self.of(value, depth + 1) for key, value in items}

    def _object(self, value: _Object, depth: int) -> Any:
        name = value.kind.name
        known = _KNOWN.get(name)
        if known is not None:
            given = _given(value)
            return known(*(self.of(each, depth) for each in given))
        if name in _DICTS:
            return self._dict(value.items, depth)
        fields = value.state.get("__dict__") if isinstance(value.state, dict) else None
        if isinstance(fields, dict):
            extra = value.state.get("__pydantic_extra__")
            return self._dict({**fields, **(extra if isinstance(extra, dict) else {})}.items(), depth)
        if name.startswith(_ENUMS) and len(value.arguments) == 1 and isinstance(value.arguments[0], str | int):
            return value.arguments[0]  # An enum is made of its value.
        raise NotPlainError(f"the pickle holds a {name[:100]!a}, which is no plain data")


def _given(value: _Object) -> tuple[Any, ...]:
    return (value.state["int"],) if value.kind.name == "uuid.UUID" else value.arguments


def _bytes(data: Any) -> bytes:
    """Return bytes of bytes or text, and never so many as a number says."""
    if isinstance(data, bytes | bytearray):
        return bytes(data)
    return str.encode(data, "latin-1")


def _datetime(data: bytes, zone: timezone | None = None) -> datetime:
    clock = _time(bytes((data[4], data[5], data[6], *data[7:10])), zone)
    day = _date(bytes((data[0], data[1], data[2] & 0x7F, data[3])))
    return datetime.combine(day, clock.replace(fold=data[2] >> 7))


def _date(data: bytes) -> date:
    year, month, day = int.from_bytes(data[:2], "big"), data[2], data[3]
    return date(year, month, day)


def _time(data: bytes, zone: timezone | None = None) -> time:
    hour, minute, second, micros = data[0] & 0x7F, data[1], data[2], int.from_bytes(data[3:6], "big")
    return time(hour, minute, second, micros, zone, fold=data[0] >> 7)


_KNOWN: Final[Mapping[str, Callable[..., Any]]] = {
    "datetime.datetime": _datetime,
    "datetime.date": _date,
    "datetime.time": _time,
    "datetime.timedelta": timedelta,
    "datetime.timezone": timezone,
    "decimal.Decimal": Decimal,
    "uuid.UUID": lambda number: UUID(int=number),
    "builtins.set": set,
    "builtins.frozenset": frozenset,
    "builtins.bytearray": lambda data=b"", _encoding=None: bytearray(_bytes(data)),
    "builtins.bytes": lambda: b"",
    "builtins.complex": complex,
    "_codecs.encode": lambda text, _encoding: text.encode("latin-1"),
    **{
        f"{module}.{name}": kind
        for module in ("pathlib", "pathlib._local")
        for name, kind in (
            ("PosixPath", PurePosixPath),
            ("PurePosixPath", PurePosixPath),
            ("WindowsPath", PureWindowsPath),
            ("PureWindowsPath", PureWindowsPath),
        )
    },
}
_DICTS: Final = frozenset(("collections.OrderedDict", "collections.defaultdict"))
_ENUMS: Final = ("google.", "fastapi.openapi.models.")
"""Where ADK has its enums from."""
