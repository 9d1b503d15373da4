"""Mask URLs of databases and of Redis: show where they lead, and nothing that may be part of a password.

People paste passwords unencoded, with ``@``, ``/``, ``:``, ``?`` and ``#`` in them, and forget the ``@`` or the host.
So "not known to be a secret" is no reason to show a part: shown is only what is in the place of a host, a port or a
name, and looks like one. This is the only mask. A parsed database URL needs none: it is
shown rebuilt from hosts, ports and name.
"""

import re
from typing import Final

__all__ = ["known_scheme", "mask_url", "query_before_at"]

_HIDDEN: Final = "***"
_SCHEME: Final = re.compile(
    r"(?:postgres|postgresql|cockroachdb|mysql|mariadb|mssql|oracle|sqlite|rediss?|valkeys?|unix|embedded|https?|file)"
    r"(?:\+[a-z0-9]{1,16})?",
    re.ASCII,
)
_QUERY_BEFORE_AT: Final = re.compile(r"\?[^@]*=.*@", re.DOTALL)
_HOSTS: Final = r"(?:\[[0-9A-Fa-f:.]+\]|[\w.-]*)(?::\d{1,5})?"
_PLACE: Final = re.compile(rf"(?P<hosts>{_HOSTS}(?:,{_HOSTS})*)(?P<path>/.*)?", re.DOTALL)
_NUMBER: Final = re.compile(r"/\d{0,9}/?", re.ASCII)
_SERVICE: Final = re.compile(r"/[\w.%~-]*(?:/\d{0,9}/?)?", re.ASCII)
_NAME: Final = re.compile(r"/[\w.%~+-]*")
_FILE: Final = re.compile(r"[^@#\x00-\x1f]*")


def known_scheme(scheme: str) -> bool:
    """Return whether a text before ``://`` is the scheme of some database, and not the beginning of a password."""
    return _SCHEME.fullmatch(scheme) is not None


def query_before_at(rest: str) -> bool:
    """Return whether an ``@`` follows ``?name=``: a password with a ``?`` may end there, or one in the query go on."""
    return _QUERY_BEFORE_AT.search(rest) is not None


def mask_url(url: str) -> str:
    """Return a URL, even an unparsable one, with user name, passwords and the values of its query hidden."""
    scheme, separator, rest = url.partition("://")
    if not separator or not known_scheme(scheme):
        return _HIDDEN
    if query_before_at(rest):
        return f"{scheme}://{_HIDDEN}"
    credentials, at, location = rest.rpartition("@")
    place, question, _ = location.partition("?")
    shown = _place(scheme, place, named=not at)
    return f"{scheme}://{_HIDDEN + at if credentials or at else ''}{shown}{'?' + _HIDDEN if question else ''}"


def _place(scheme: str, place: str, *, named: bool) -> str:
    """Return what may be shown of hosts and path.

    :param named: no user name or password comes before it, so it may be one whose host was forgotten.
    """
    if scheme.startswith(("sqlite", "unix", "embedded", "file")):
        return place if place[:1] in {"", "/"} and _FILE.fullmatch(place) else _HIDDEN
    parts = _PLACE.fullmatch(place)
    if parts is None or (named and place.startswith(":") and len(place) > 1 and not _hostless(parts["path"])):
        return _HIDDEN
    path = parts["path"] or ""
    allowed = {"redis": _NUMBER, "rediss": _NUMBER, "redis+cluster": _NUMBER, "redis+sentinel": _SERVICE}
    return parts["hosts"] + (path if allowed.get(scheme, _NAME).fullmatch(path or "/") else f"/{_HIDDEN}")


def _hostless(path: str | None) -> bool:
    return path is None or _NUMBER.fullmatch(path) is not None
