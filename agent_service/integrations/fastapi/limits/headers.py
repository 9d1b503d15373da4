"""``RateLimit``, ``RateLimit-Policy`` and ``Retry-After``: what clients are told of the limits of a request.

The fields are those of draft-ietf-httpapi-ratelimit-headers-10. A limiter has one policy for each rate, named after
both: ``"chat-60s";q=20;w=60``.
"""

import math
from collections.abc import Mapping
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from agent_service.infrastructure.limits.limiter import Decision, RateLimiter

__all__ = ["SCOPE_KEY", "RateLimitHeaders", "headers_of"]

SCOPE_KEY: Final = "agent_service.limits"
"""Where the scope of a request holds the decisions about it, by limiter."""


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
        decisions: dict[RateLimiter, Decision] = {}

        async def send_with_headers(message: Message) -> None:
            if decisions and message["type"] == "http.response.start":
                added = [(name.lower().encode(), text.encode()) for name, text in headers_of(decisions).items()]
                message = {**message, "headers": [*message.get("headers", ()), *added]}
            await send(message)

        await self._app({**scope, SCOPE_KEY: decisions}, receive, send_with_headers)


def headers_of(decisions: Mapping[RateLimiter, Decision]) -> dict[str, str]:
    """Return the fields that tell what is left of every rate, by name."""
    policies, left = list[str](), list[str]()
    for limiter, decision in decisions.items():
        for each in decision.remaining:
            name = f'"{limiter.name}-{each.rate.seconds:g}s"'
            policies.append(f"{name};q={each.rate.quota};w={math.ceil(each.rate.seconds)}")
            left.append(f"{name};r={each.quota};t={math.ceil(each.reset_after)}")
    return {"RateLimit-Policy": ", ".join(policies), "RateLimit": ", ".join(left)}
