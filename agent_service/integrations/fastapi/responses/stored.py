"""A response as the cache keeps it: a tuple of plain immutable values, which memory shares between all readers."""

import math
from typing import Any, Final, NamedTuple

from agent_service.core.ttl import NEVER, TTL

__all__ = ["StoredResponse", "read_stored"]

_VERSION: Final = 1
_TYPES: Final = (int, int, tuple, bytes, str, str, float, bool, float)
_TEXT: Final = frozenset({str})


class StoredResponse(NamedTuple):
    """The whole response to a GET, and what was decided about it when it was loaded."""

    status: int
    headers: tuple[str, ...]
    """Names, in lower case, and values in turn. Without those of the connection, Set-Cookie, Age and Content-Length."""
    body: bytes
    etag: str
    """The entity tag of a success; "": there is none."""
    withheld: str
    """Why none but the caller it was loaded for may have it; then nothing of it is here. "": others may."""
    lifetime: float
    """Seconds that it is fresh for in this cache; 0: it is not stored."""
    stale_allowed: bool
    """Whether it may be served stale, where the options of the load allow that."""
    age: float
    """Seconds that it had spent in other caches before."""

    def to_value(self) -> tuple[object, ...]:
        """Return what is given to the cache."""
        return (_VERSION, *self)

    @staticmethod
    def lifetime_of(value: Any) -> TTL:
        """Return the lifetime of what :meth:`to_value` gave."""
        lifetime: float = value[6]
        return NEVER if lifetime == math.inf else lifetime

    def header(self, name: str) -> str:
        """Return the values of a header, joined by commas; "" where it is missing."""
        pairs = zip(self.headers[::2], self.headers[1::2], strict=True)
        return ", ".join([value for each, value in pairs if each == name])


def read_stored(value: Any) -> StoredResponse | None:
    """Return a response that the cache gave; None for what no version of this package wrote."""
    if type(value) is not tuple or tuple(map(type, value)) != _TYPES or value[0] != _VERSION:
        return None
    stored = StoredResponse._make(value[1:])
    headers = stored.headers
    if len(headers) % 2 or not _TEXT.issuperset(map(type, headers)):
        return None
    try:
        "".join(headers).encode("latin-1")
    except UnicodeEncodeError:
        return None
    return stored
