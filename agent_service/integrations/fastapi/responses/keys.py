"""What tells requests apart: the URL, the header fields that responses vary by, and for whom the response is.

A key is the JSON of a list, so that no two requests share one whatever their parts hold. Long ones are digests.
"""

from collections.abc import Collection, Mapping, Sequence
from hashlib import blake2b
from typing import Any, Final
from urllib.parse import parse_qsl, urlencode

import orjson

__all__ = ["key_of", "query_text", "request_headers"]

_LONGEST: Final = 1024


def request_headers(scope: Mapping[str, Any]) -> dict[str, str]:
    """Return the header fields of a request by name, in lower case; lines of one field are joined by commas."""
    headers: dict[str, str] = {}
    for raw_name, raw_value in scope["headers"]:
        name, value = raw_name.decode("latin-1"), raw_value.decode("latin-1")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers


def query_text(query: bytes, names: Collection[str] | None) -> str:
    """Return the part of a query string that tells requests apart.

    :param names: the parameters that count; they are sorted, and those of one name keep their order. None: the query
        string counts as it was sent.
    """
    text = query.decode("latin-1")
    if names is None or not text:
        return text
    pairs = [pair for pair in parse_qsl(text, keep_blank_values=True) if pair[0] in names]
    return urlencode(sorted(pairs, key=lambda pair: pair[0]))


def key_of(
    scope: Mapping[str, Any], headers: Mapping[str, str], query: str, vary: Sequence[str], identity: str | None
) -> str:
    """Return the key of a request. GET and HEAD share it."""
    origin = f"{scope.get('scheme', 'http')}://{headers.get('host', '').lower()}"
    parts = [origin, scope.get("root_path", ""), scope["path"], query]
    if vary:
        parts.append([headers.get(name) for name in vary])
    if identity is not None:
        parts.append({"for": identity})
    text = orjson.dumps(parts)
    return text.decode() if len(text) <= _LONGEST else blake2b(text, digest_size=32).hexdigest()
