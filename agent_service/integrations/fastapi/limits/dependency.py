"""``rate_limit``: a limiter in front of a route, declared among its dependencies."""

import inspect
import math
from collections.abc import Awaitable, Callable
from typing import TypeAlias

from starlette.exceptions import HTTPException
from starlette.requests import Request

from agent_service.core.errors import ConfigurationError, RateLimitValueError
from agent_service.infrastructure.limits.limiter import RateLimiter
from agent_service.integrations.fastapi.limits.headers import SCOPE_KEY, Decisions

__all__ = ["RateLimit", "client_ip", "rate_limit"]

KeyOf: TypeAlias = Callable[[Request], str | Awaitable[str]]
WeightOf: TypeAlias = Callable[[Request], int | Awaitable[int]]


def client_ip(request: Request) -> str:
    """Return the address of the client, as the server knows it.

    Behind a proxy that is the proxy's, unless the server is told to trust it (``uvicorn --proxy-headers
    --forwarded-allow-ips``). Headers are not read here: a client could choose its own key by them.

    :raises ConfigurationError: the server does not tell it.
    """
    if request.client is None:
        raise ConfigurationError("the server does not tell the address of the client; limit by another key=")
    return request.client.host


def rate_limit(limiter: RateLimiter, *, key: KeyOf = client_ip, weight: int | WeightOf = 1) -> "RateLimit":
    """Return the dependency that lets a request through only within the rates of a limiter.

    ::

        chat = RateLimiter("chat", "20/minute", "1000/day")
        app.add_middleware(RateLimitHeaders)

        @app.post("/chat", dependencies=[Depends(rate_limit(chat, key=user_of))])
        async def answer(question: Question) -> Answer: ...

    A request that is too much is answered with 429, ``Retry-After`` and a problem document, and nothing is taken for
    it. One that weighs more than the limiter ever lets through is answered with 422. Routes with the same limiter share
    its limits. Declared before :func:`cache_response`, it counts what the cache answers, too; a load is not counted
    again.

    :param limiter: keeps the rates.
    :param key: whose limit it is, a function of the request; it may be asynchronous.
    :param weight: how much a request counts, or a function of it; it may be asynchronous.
    :raises ConfigurationError: for a weight that the limiter never lets through, and for what is no function.
    """
    if not isinstance(limiter, RateLimiter):
        raise ConfigurationError(f"limiter must be a RateLimiter, not {type(limiter).__name__}")
    if not callable(key):
        raise ConfigurationError(f"key must be a function of the request, not {type(key).__name__}")
    if not callable(weight) and (type(weight) is not int or not 1 <= weight <= limiter.most):
        raise ConfigurationError(
            f"weight must be an int from 1 to {limiter.most}, all that limiter {limiter.name} ever lets through at "
            f"once, or a function of the request; got {weight!r:.80}"
        )
    return RateLimit(limiter, key, weight)


class RateLimit:
    """The dependency that :func:`rate_limit` gives."""

    def __init__(self, limiter: RateLimiter, key: KeyOf, weight: int | WeightOf) -> None:
        self._limiter = limiter
        self._key = key
        self._weight = weight

    async def __call__(self, request: Request) -> None:
        """Let the request through, or end it.

        :raises HTTPException: 429, the rates are used up; 422, it weighs more than they ever let through.
        :raises ConfigurationError: the application lacks :class:`RateLimitHeaders`, or the key is no text.
        """
        decisions: Decisions | None = request.scope.get(SCOPE_KEY)
        if decisions is None:
            raise ConfigurationError("rate_limit needs app.add_middleware(RateLimitHeaders), which tells clients of it")
        if self in decisions:  # by the pass of this request that the cache of responses answers
            return
        key = self._key(request)
        name = await key if inspect.isawaitable(key) else key
        weight = self._weight(request) if callable(self._weight) else self._weight
        amount = await weight if inspect.isawaitable(weight) else weight
        if not isinstance(name, str):
            raise ConfigurationError(
                f"key= of a limit by {self._limiter.name} must return a str, got {type(name).__name__}; raise an "
                "HTTPException for a request of nobody"
            )
        try:
            decision = await self._limiter.take(name, amount)
        except RateLimitValueError as exc:
            raise HTTPException(422, str(exc)) from exc
        decisions[self] = (self._limiter, decision)
        if not decision.taken:
            seconds = max(math.ceil(decision.retry_after), 1)
            detail = f"The limit of {self._limiter.name} is reached; try again in {seconds} seconds."
            raise HTTPException(429, detail, {"Retry-After": str(seconds)})
