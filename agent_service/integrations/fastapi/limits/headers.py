"""``RateLimit``, ``RateLimit-Policy`` and ``Retry-After``: what clients are told of the limits of a request.

The fields are those of draft-ietf-httpapi-ratelimit-headers-10. A limiter has one policy for each rate, named after
both: ``"chat-60s";q=20;w=60``.
"""

import math
from collections.abc import Iterable
from typing import Final, TypeAlias

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from agent_service.infrastructure.limits.limiter import Decision, RateLimiter

__all__ = ["SCOPE_KEY", "Decisions", "RateLimitHeaders", "headers_of"]

SCOPE_KEY: Final = "agent_service.limits"
"""Where the scope of a request holds the decisions about it."""

Decisions: TypeAlias = dict[object, tuple[RateLimiter, Decision]]
"""By the dependency that asked: one limiter may be asked for several keys."""


class RateLimitHeaders:
    """Adds what :func:`rate_limit` decided to the responses of an application, streams and cached ones included.

    ::

        app.add_middleware(RateLimitHeaders)
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request of the application."""
        if scope["type"] != "http" or SCOPE_KEY in scope:
            await self._app(scope, receive, send)
            return
        decisions: Decisions = {}

        async def send_with_headers(message: Message) -> None:
            if decisions and message["type"] == "http.response.start":
                added = [
                    (name.lower().encode(), text.encode()) for name, text in headers_of(decisions.values()).items()
                ]
                message = {**message, "headers": [*message.get("headers", ()), *added]}
            await send(message)

        await self._app({**scope, SCOPE_KEY: decisions}, receive, send_with_headers)


def headers_of(decisions: Iterable[tuple[RateLimiter, Decision]]) -> dict[str, str]:
    """Return the fields that tell what is left of every rate, by name: of the key that has least, where one limiter
    was asked for several.
    """
    policies, left = dict[str, str](), dict[str, tuple[int, int]]()
    for limiter, decision in decisions:
        for each in decision.remaining:
            name = f'"{limiter.name}-{each.rate.seconds:g}s"'
            policies[name] = f"{name};q={each.rate.quota};w={math.ceil(each.rate.seconds)}"
            now = (each.quota, math.ceil(each.reset_after))
            left[name] = min(left.get(name, now), now)
    shown = [f"{name};r={quota};t={seconds}" for name, (quota, seconds) in left.items()]
    return {"RateLimit-Policy": ", ".join(policies.values()), "RateLimit": ", ".join(shown)}
