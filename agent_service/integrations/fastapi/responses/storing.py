"""What of a response may be kept, for whom and for how long: RFC 9111, section 3 and 4.2, and stricter.

Nothing is shared that sets a cookie, is ``private`` or ``no-store``, or varies by what its key does not tell.
Errors are not stored unless the route says for how long, by a Cache-Control of its own.
"""

import math
from collections.abc import Collection, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Final

from agent_service.integrations.fastapi.entity_tags import content_tag, parse_tags
from agent_service.integrations.fastapi.responses.capture import Captured
from agent_service.integrations.fastapi.responses.dates import http_date
from agent_service.integrations.fastapi.responses.directives import directives, seconds_of
from agent_service.integrations.fastapi.responses.stored import StoredResponse

__all__ = ["YEAR", "ClientRules", "stored_of"]

_STORED: Final = frozenset({200, 203, 204, 300, 301, 308})
"""Cacheable by their definition (RFC 9110, 15.1), errors and partial content left out."""
_NEVER_STORED: Final = frozenset({206, 304})
_NOT_KEPT: Final = frozenset(
    {
        "age", "connection", "content-length", "keep-alive", "proxy-authenticate", "proxy-authentication-info",
        "proxy-connection", "set-cookie", "te", "trailer", "transfer-encoding", "upgrade",
    }
)  # fmt: skip
YEAR: Final = 31_536_000
"""Seconds: what "for ever" is called in Cache-Control."""


class ClientRules:
    """What clients and caches on the way are told where the route says nothing of its own.

    :param audience: "public", "private" or "".
    :param max_age: seconds; None: as long as the response is fresh here.
    :param s_maxage: seconds for shared caches; None: not said.
    :param stale_for: seconds that a stale response may be served.
    :param revalidates: whether it may be served while it is loaded again, too, and not only after an error.
    """

    def __init__(
        self, audience: str, max_age: float | None, s_maxage: float | None, stale_for: float, *, revalidates: bool
    ) -> None:
        self.stale_for = stale_for
        self._max_age = max_age
        more = [] if s_maxage is None else [f"s-maxage={_whole(s_maxage)}"]
        if stale_for:
            seconds = _whole(stale_for)
            more += [f"stale-while-revalidate={seconds}"] if revalidates else []
            more.append(f"stale-if-error={seconds}")
        self._before = f"{audience}, " if audience else ""
        self._after = "".join(f", {each}" for each in more)

    def cache_control(self, lifetime: float) -> str:
        """Return the Cache-Control of a response."""
        seconds = lifetime if self._max_age is None else self._max_age
        return f"{self._before}max-age={_whole(seconds)}{self._after}"


def stored_of(
    captured: Captured,
    agreed: Collection[str],
    vary: Collection[str],
    rules: ClientRules,
    *,
    ttl: float,
    most_bytes: int,
    personal: bool,
) -> StoredResponse:
    """Return a response as it is given to the cache: whole, or nothing of it where others may not have it.

    :param agreed: the header fields, in lower case, that requests with one key agree in.
    :param vary: those that clients are told of.
    :param ttl: seconds, where the route names none.
    :param most_bytes: of the body of what is stored.
    :param personal: whether the key names whose response it is, so that ``private`` is kept.
    """
    headers: dict[str, list[str]] = {}
    for raw_name, raw_value in captured.headers:
        headers.setdefault(raw_name.decode("latin-1").lower(), []).append(raw_value.decode("latin-1"))
    stated = directives(", ".join(headers.get("cache-control", ())))
    varies_by = set(_listed(headers, "vary"))
    reasons = {
        "stream": captured.streams,
        "set-cookie": "set-cookie" in headers,
        "no-store": "no-store" in stated,
        "unreadable": "" in stated,  # it may have said so
        "private": "private" in stated and not personal,
        "session": captured.in_session and not personal,
        "vary": not varies_by.issubset(agreed),
    }
    withheld = next((reason for reason, holds in reasons.items() if holds), "")
    if withheld:
        return StoredResponse(captured.status, (), b"", "", withheld, 0.0, False, 0.0)
    age = _age(headers)
    lifetime = _lifetime(captured.status, headers, stated, ttl=ttl, personal=personal) - age
    if "no-cache" in stated or len(captured.body) > most_bytes:
        lifetime = 0.0
    success = 200 <= captured.status < 300
    if success and lifetime > 0:
        headers.setdefault("cache-control", [rules.cache_control(lifetime)])
    etag = _etag(headers, captured.body) if success else ""
    if etag:
        headers["etag"] = [etag]
    if vary and success:
        headers["vary"] = [", ".join(sorted({*vary, *varies_by}))]
    left_out = _NOT_KEPT.union(_listed(headers, "connection"))
    kept = [(name, value) for name, values in headers.items() if name not in left_out for value in values]
    stale_allowed = stated.keys().isdisjoint({"must-revalidate", "proxy-revalidate", "s-maxage"})
    flat = tuple([text for pair in kept for text in pair])
    return StoredResponse(captured.status, flat, captured.body, etag, "", max(lifetime, 0.0), stale_allowed, age)


def _lifetime(
    status: int, headers: Mapping[str, list[str]], stated: Mapping[str, str], *, ttl: float, personal: bool
) -> float:
    """Return for how long a response is fresh (RFC 9111, 4.2.1). What is no success has to say so itself."""
    if status < 200 or status in _NEVER_STORED:
        return 0.0
    for name in ("max-age",) if personal else ("s-maxage", "max-age"):
        seconds = seconds_of(stated, name)
        if seconds is not None:
            return float(seconds)
    if "expires" not in headers:
        return ttl if status in _STORED else 0.0
    try:
        date = http_date(headers["date"][0]) if "date" in headers else datetime.now(UTC)
        return (http_date(headers["expires"][0]) - date).total_seconds()
    except ValueError:
        return 0.0  # an invalid date is in the past


def _etag(headers: Mapping[str, list[str]], body: bytes) -> str:
    """Return the entity tag that the route gave, or a strong one of the content, its type and its encoding."""
    given = headers.get("etag", [""])[0]
    with suppress(ValueError):
        if len(parse_tags([given]).tags) == 1:
            return given.strip()
    kind, encoding = (", ".join(headers.get(name, ())) for name in ("content-type", "content-encoding"))
    return str(content_tag(b"%b\0%b\0%b" % (kind.encode(), encoding.encode(), body)))


def _age(headers: Mapping[str, list[str]]) -> float:
    return float(seconds_of({"age": headers.get("age", ["0"])[0].strip()}, "age") or 0)


def _listed(headers: Mapping[str, list[str]], name: str) -> list[str]:
    return [each.strip().lower() for field in headers.get(name, ()) for each in field.split(",") if each.strip()]


def _whole(seconds: float) -> int:
    return YEAR if seconds == math.inf else int(seconds)
