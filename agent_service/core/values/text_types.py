"""Standard and pydantic types that are written as their own text: addresses, paths, URLs, patterns, zones.

Each is written only if the text makes an equal value again. URLs are read by class name from pydantic's own classes.
"""

import re
from collections.abc import Callable, Mapping
from datetime import timedelta, timezone
from fractions import Fraction
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network
from pathlib import PosixPath, PurePosixPath, PureWindowsPath, WindowsPath
from typing import Any, Final, Protocol
from zoneinfo import ZoneInfo

import pydantic
import pydantic_core

from agent_service.core.values.refusal import NotWritable

__all__ = ["TEXT_READERS", "TEXT_WRITERS", "URLS"]

_TAGS: Final[Mapping[type, str]] = {
    IPv4Address: "$ipv4",
    IPv4Interface: "$ipv4interface",
    IPv4Network: "$ipv4network",
    IPv6Address: "$ipv6",
    IPv6Interface: "$ipv6interface",
    IPv6Network: "$ipv6network",
    PosixPath: "$path",
    WindowsPath: "$windowspath",
    PurePosixPath: "$purepath",
    PureWindowsPath: "$purewindowspath",
}

_PLAIN_URLS: Final = (pydantic_core.Url, pydantic_core.MultiHostUrl)
_MULTI_HOST: Final = ("PostgresDsn", "CockroachDsn", "MongoDsn", "NatsDsn")
_SINGLE_HOST: Final = (
    *("AnyUrl", "AnyHttpUrl", "HttpUrl", "AnyWebsocketUrl", "WebsocketUrl", "FileUrl", "FtpUrl"),
    *("AmqpDsn", "RedisDsn", "KafkaDsn", "MySQLDsn", "MariaDBDsn", "ClickHouseDsn", "SnowflakeDsn"),
)


class _Url(Protocol):
    """A class of pydantic that wraps the URL it parsed."""

    _url: Any


def _of_pydantic(names: tuple[str, ...]) -> dict[str, type]:
    return {name: getattr(pydantic, name) for name in names if hasattr(pydantic, name)}


_PARSERS: Final[Mapping[str, Callable[[str], Any]]] = {
    **dict.fromkeys(_of_pydantic(_SINGLE_HOST), pydantic_core.Url),
    **dict.fromkeys(_of_pydantic(_MULTI_HOST), pydantic_core.MultiHostUrl),
    **{cls.__name__: cls for cls in _PLAIN_URLS},
}
_URLS: Final[Mapping[str, type]] = {
    **_of_pydantic((*_SINGLE_HOST, *_MULTI_HOST)),
    **{cls.__name__: cls for cls in _PLAIN_URLS},
}


def _write_url(value: Any) -> dict[str, Any]:
    name, text = type(value).__name__, str(value)
    if str(_PARSERS[name](text)) != text:
        raise NotWritable(f"it is a {name} whose text reads back as another URL; store str() of it")
    return {"$url": [name, text]}


def _read_url(node: Any) -> Any:
    name, text = node
    parsed = _PARSERS[name](_text(text))
    cls = _URLS[name]
    if cls in _PLAIN_URLS:
        return parsed
    url: _Url = object.__new__(cls)  # without validation, which ran when the value was made
    url._url = parsed  # noqa: SLF001 - where pydantic's URLs keep what they parsed
    return url


_FRACTION: Final = re.compile(r"-?[0-9]+(?:/[0-9]+)?")


def _write_fraction(value: Fraction) -> dict[str, Any]:
    try:
        return {"$fraction": str(value)}
    except ValueError as exc:  # Python's limit on digits
        raise NotWritable("it is a Fraction of too many digits; store numerator and denominator") from exc


def _read_fraction(node: Any) -> Fraction:
    if not _FRACTION.fullmatch(_text(node)):  # an exponent could ask for any number of digits
        raise ValueError("two integers are expected")
    return Fraction(node)


_WIDEST_RANGE: Final = 1000
_IGNORES_CASE: Final = re.compile(r"\(\?[a-zA-Z]*i")
_ESCAPED_RANGE: Final = re.compile(r"\\[uUN][^-]{0,80}-|-\\[uUN]")
_RANGE: Final = re.compile(r"(?=(.)-(.))", re.DOTALL)


def _is_costly(text: str, flags: int) -> bool:
    """Return whether compiling a pattern may visit each character of wide ranges, as it does if case is ignored."""
    if not (flags & re.IGNORECASE or _IGNORES_CASE.search(text)):
        return False
    if _ESCAPED_RANGE.search(text):
        return True
    return any(ord(last) - ord(first) > _WIDEST_RANGE for first, last in _RANGE.findall(text))


def _write_pattern(value: re.Pattern[Any]) -> dict[str, Any]:
    text = value.pattern
    kept = text if isinstance(text, str) else text.decode("latin-1")
    if isinstance(text, str) and _is_costly(text, value.flags):
        raise NotWritable("it is a pattern that ignores case in a wide range of characters; store its text and flags")
    return {"$pattern": [type(text).__name__, kept, int(value.flags) & ~int(re.DEBUG)]}


def _read_pattern(node: Any) -> re.Pattern[Any]:
    kind, text, flags = node
    if kind not in {"str", "bytes"} or type(flags) is not int or flags & int(re.DEBUG):
        raise ValueError("a pattern of str or bytes is expected")
    if kind == "str" and _is_costly(_text(text), flags):
        raise ValueError("a pattern without wide ranges is expected")
    return re.compile(_text(text) if kind == "str" else _text(text).encode("latin-1"), flags)


def _write_zone(value: ZoneInfo) -> dict[str, Any]:
    if value.key is None:
        raise NotWritable("it is a ZoneInfo without a name, made from a file; use zoneinfo.ZoneInfo(name)")
    return {"$zone": value.key}


def _write_offset(value: timezone) -> dict[str, Any]:
    offset = value.utcoffset(None)
    return {"$zone": [offset.days, offset.seconds, offset.microseconds, value.tzname(None)]}


def _read_zone(node: Any) -> ZoneInfo | timezone:
    if type(node) is str:
        return ZoneInfo(node)
    days, seconds, microseconds, name = node
    offset = timezone(timedelta(days, seconds, microseconds))
    return offset if offset.tzname(None) == name else timezone(offset.utcoffset(None), name)


def _text(node: Any) -> str:
    if type(node) is not str:
        raise TypeError(f"a string is expected, not {type(node).__name__}")
    return node


def _writer(tag: str) -> Callable[[Any], dict[str, Any]]:
    return lambda value: {tag: str(value)}


def _reader(cls: Callable[[str], Any]) -> Callable[[Any], Any]:
    return lambda node: cls(_text(node))


URLS: Final = tuple(_URLS.values())
"""The classes of URLs that are known."""

TEXT_WRITERS: Final[Mapping[type, Callable[[Any], dict[str, Any]]]] = {
    **{cls: _writer(tag) for cls, tag in _TAGS.items()},
    **dict.fromkeys(_URLS.values(), _write_url),
    Fraction: _write_fraction,
    re.Pattern: _write_pattern,
    ZoneInfo: _write_zone,
    timezone: _write_offset,
}
"""By exact type: the function that writes a value as JSON."""

TEXT_READERS: Final[Mapping[str, Callable[[Any], Any]]] = {
    **{tag: _reader(cls) for cls, tag in _TAGS.items()},
    "$fraction": _read_fraction,
    "$url": _read_url,
    "$pattern": _read_pattern,
    "$zone": _read_zone,
}
"""By tag: the function that reads it. For damaged data it raises whatever the class raises."""
