"""How the codec writes and reads standard types that JSON lacks: as objects with one member, ``{"$uuid": "..."}``.

Only types that hold no other values live here and in :mod:`.text_types`; tuples, sets and their like belong to the walk
in :mod:`.json_writer` and :mod:`.json_reader`.
"""

import binascii
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from typing import Any, Final, TypeVar
from uuid import UUID
from zoneinfo import ZoneInfo

from agent_service.core.values.refusal import NotWritable
from agent_service.core.values.text_types import TEXT_READERS, TEXT_WRITERS

__all__ = ["READERS", "WRITERS", "keeps_zone", "write_float", "write_int"]

Stamp = TypeVar("Stamp", datetime, time)


def keeps_zone(zone: tzinfo | None) -> bool:
    """Return whether a zone comes back as itself: none, a fixed offset of the standard library, or a named ZoneInfo."""
    return zone is None or type(zone) is timezone or (type(zone) is ZoneInfo and zone.key is not None)


def _iso_keeps(zone: tzinfo | None) -> bool:
    if zone is None or zone is UTC:
        return True
    return type(zone) is timezone and zone.tzname(None) == timezone(zone.utcoffset(None)).tzname(None)


def _write_stamp(tag: str, value: datetime | time) -> dict[str, Any]:
    """Write ISO 8601 text, or ``[text, fold, zone]`` where the text alone would lose the fold or the zone's name."""
    zone = value.tzinfo
    if not value.fold and _iso_keeps(zone):
        return {tag: value.isoformat()}
    if not keeps_zone(zone):
        offset = value.utcoffset()
        if offset is None:
            raise NotWritable(
                f"its tzinfo is a {type(zone).__qualname__}, which gives no offset; use a zoneinfo.ZoneInfo"
            )
        return _write_stamp(tag, value.replace(tzinfo=timezone(offset)))
    kept: str | list[Any] | None = None
    if type(zone) is ZoneInfo:
        kept = zone.key
    elif type(zone) is timezone:
        kept = [zone.utcoffset(None).total_seconds(), zone.tzname(None)]
    return {tag: [value.replace(tzinfo=None, fold=0).isoformat(), value.fold, kept]}


def _read_stamp(cls: type[Stamp], node: Any) -> Stamp:
    if type(node) is str:
        return cls.fromisoformat(node)
    text, fold, kept = node
    zone: tzinfo | None = None
    if type(kept) is str:
        zone = ZoneInfo(kept)
    elif kept is not None:
        seconds, name = kept
        zone = timezone(timedelta(seconds=seconds), name)
    return cls.fromisoformat(text).replace(fold=fold, tzinfo=zone)


def _text(node: Any) -> str:
    if type(node) is not str:
        raise TypeError(f"a string is expected, not {type(node).__name__}")
    return node


def _base64(value: bytes | bytearray) -> str:
    return binascii.b2a_base64(value, newline=False).decode()


def _read_base64(node: Any) -> bytes:
    return binascii.a2b_base64(_text(node), strict_mode=True)


def write_float(value: float) -> dict[str, Any]:
    """Write NaN and the infinities, which JSON has no numbers for."""
    return {"$float": repr(value)}


def write_int(value: int) -> dict[str, Any]:
    """Write an integer beyond 64 bits, in hexadecimal: linear in its size, and free of Python's limit on digits."""
    return {"$int": f"{value:x}"}


def _read_float(node: Any) -> float:
    if node not in {"nan", "inf", "-inf"}:
        raise ValueError("nan, inf or -inf is expected")
    return float(node)


def _read_complex(node: Any) -> complex:
    real, imag = node
    return complex(float(_text(real)), float(_text(imag)))


def _read_timedelta(node: Any) -> timedelta:
    days, seconds, microseconds = node
    return timedelta(days, seconds, microseconds)


def _write_steps(value: range) -> list[str]:
    return [f"{each:x}" for each in (value.start, value.stop, value.step)]


def _read_range(node: Any) -> range:
    start, stop, step = node
    return range(int(_text(start), 16), int(_text(stop), 16), int(_text(step), 16))


WRITERS: Final[Mapping[type, Callable[[Any], dict[str, Any]]]] = {
    datetime: lambda value: _write_stamp("$datetime", value),
    date: lambda value: {"$date": value.isoformat()},
    time: lambda value: _write_stamp("$time", value),
    timedelta: lambda value: {"$timedelta": [value.days, value.seconds, value.microseconds]},
    Decimal: lambda value: {"$decimal": str(value)},
    UUID: lambda value: {"$uuid": value.hex},
    bytes: lambda value: {"$bytes": _base64(value)},
    bytearray: lambda value: {"$bytearray": _base64(value)},
    complex: lambda value: {"$complex": [repr(value.real), repr(value.imag)]},
    range: lambda value: {"$range": _write_steps(value)},
    **TEXT_WRITERS,
}
"""By exact type: the function that writes a value as JSON."""

READERS: Final[Mapping[str, Callable[[Any], Any]]] = {
    "$datetime": lambda node: _read_stamp(datetime, node),
    "$date": date.fromisoformat,
    "$time": lambda node: _read_stamp(time, node),
    "$timedelta": _read_timedelta,
    "$decimal": lambda node: Decimal(_text(node)),
    "$uuid": lambda node: UUID(_text(node)),
    "$bytes": _read_base64,
    "$bytearray": lambda node: bytearray(_read_base64(node)),
    "$complex": _read_complex,
    "$float": _read_float,
    "$int": lambda node: int(_text(node), 16),
    "$range": _read_range,
    **TEXT_READERS,
}
"""By tag: the function that reads it. Damaged data: ValueError, TypeError, ArithmeticError, LookupError or OSError."""
