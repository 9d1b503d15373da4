"""From a response of the cache to what one client is sent: 200, 304 or nothing but headers."""

from collections.abc import Mapping
from typing import Final

from starlette.responses import Response

from agent_service.integrations.fastapi.entity_tags import EntityTag, parse_tags
from agent_service.integrations.fastapi.responses.capture import Captured
from agent_service.integrations.fastapi.responses.dates import http_date
from agent_service.integrations.fastapi.responses.stored import StoredResponse

__all__ = ["CACHE_NAME", "answer", "gateway_timeout", "not_modified", "unchanged"]

CACHE_NAME: Final = "agent-service"
"""What this cache calls itself in Cache-Status (RFC 9211)."""

_OF_304: Final = frozenset(
    {"cache-control", "cache-status", "content-location", "date", "etag", "expires", "last-modified", "vary"}
)
"""What a 304 repeats (RFC 9110, 15.4.5). Last-Modified as well, for clients that know no entity tags."""
_BODILESS: Final = frozenset({204, 304})


class _Answer(Response):
    """A response whose parts are known already."""

    def __init__(self, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
        self.status_code = status
        self.raw_headers = headers
        self.body = body
        self.background = None


def answer(stored: StoredResponse, asked: Mapping[str, str], *, head: bool, age: float | None, status: str) -> Response:
    """Return the response to a request.

    :param asked: the headers of the request.
    :param head: whether it is a HEAD.
    :param age: seconds since the response was loaded; None: for this request.
    :param status: what Cache-Status says about it.
    """
    code, names, body = stored.status, None, stored.body
    if stored.etag and not_modified(stored, asked):
        code, names, body = 304, _OF_304, b""
    fields = stored.headers
    headers = [
        (name.encode(), value.encode("latin-1"))
        for name, value in zip(fields[::2], fields[1::2], strict=True)
        if names is None or name in names
    ]
    if code not in _BODILESS:
        headers.append((b"content-length", b"%d" % len(body)))
    if age is not None or stored.age:
        headers.append((b"age", b"%d" % int(stored.age + (age or 0.0))))
    headers.append((b"cache-status", f"{CACHE_NAME}; {status}".encode()))
    return _Answer(code, headers, b"" if head else body)


def unchanged(captured: Captured, *, head: bool, status: str) -> Response:
    """Return what the route sent, to the caller it was loaded for; the cache keeps nothing of it."""
    status = f"{CACHE_NAME}; {status}"
    return _Answer(
        captured.status, [*captured.headers, (b"cache-status", status.encode())], b"" if head else captured.body
    )


def gateway_timeout() -> Response:
    """Return the response to ``only-if-cached`` where nothing is (RFC 9111, 5.2.1.7)."""
    status = f"{CACHE_NAME}; fwd=uri-miss; detail=only-if-cached".encode()
    return _Answer(504, [(b"content-length", b"0"), (b"cache-status", status)], b"")


def not_modified(stored: StoredResponse, asked: Mapping[str, str]) -> bool:
    """Whether the client has this representation already (RFC 9110, 13.2.2)."""
    if "if-none-match" in asked:
        try:
            known = parse_tags([asked["if-none-match"]])
        except ValueError:
            return False
        return known.match_weakly(EntityTag(stored.etag.removeprefix("W/")[1:-1]))
    since = asked.get("if-modified-since")
    if since is None:
        return False
    try:
        return http_date(stored.header("last-modified")) <= http_date(since)
    except ValueError:
        return False
