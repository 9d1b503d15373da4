"""Errors as problem documents (RFC 9457): every error of this package, and those of FastAPI itself.

What a client did wrong is told in full. What is wrong here is not: texts of drivers, settings and addresses are for
the log. An error that is a fault of the service goes on to the server, which logs it with its traceback.
"""

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection
from starlette.responses import Response

from agent_service.core.errors import (
    AgentServiceError,
    BridgeTimeoutError,
    CacheKeyError,
    CacheValueError,
    ContextKeyError,
    DatabaseUnavailableError,
    LoadTimeoutError,
    RateLimitExceededError,
    RateLimitValueError,
    RecordValueError,
    RedisRefusedError,
    RedisUnavailableError,
    RedisUnreplicatedError,
    RuntimeStateError,
    SessionConflictError,
    SessionNotFoundError,
    SessionValueError,
    StateConflictError,
)
from agent_service.integrations.fastapi.openapi import show_problems
from agent_service.integrations.fastapi.problem_types import MEDIA_TYPE, PROBLEM_TYPES, phrase

__all__ = ["add_problem_handlers", "problem_of", "problem_response"]

RETRY_AFTER: Final = 1
"""Seconds after which a client may try again what did not serve."""
_MOST_ERRORS: Final = 20
"""The most invalid fields that one answer names: a body may be made of them."""

_UNAVAILABLE: Final = (
    DatabaseUnavailableError, RedisUnavailableError, RedisRefusedError, RedisUnreplicatedError,
)  # fmt: skip
_STATUSES: Final[tuple[tuple[tuple[type[Exception], ...], HTTPStatus], ...]] = (
    ((SessionNotFoundError, ContextKeyError), HTTPStatus.NOT_FOUND),
    ((SessionConflictError, StateConflictError), HTTPStatus.CONFLICT),
    (
        (SessionValueError, RecordValueError, CacheKeyError, CacheValueError, RateLimitValueError),
        HTTPStatus.UNPROCESSABLE_ENTITY,
    ),
    ((RateLimitExceededError,), HTTPStatus.TOO_MANY_REQUESTS),
    ((LoadTimeoutError, BridgeTimeoutError), HTTPStatus.GATEWAY_TIMEOUT),
    (_UNAVAILABLE, HTTPStatus.SERVICE_UNAVAILABLE),
)
_SAID: Final = {
    HTTPStatus.GATEWAY_TIMEOUT: "The answer took too long; try again later.",
    HTTPStatus.SERVICE_UNAVAILABLE: "What this request needs does not serve now; try again later.",
}
_PLACES: Final = ("body", "query", "path", "header", "cookie")
_FAULT: Final = "The service failed; its log says more."

# Messages about an argument begin with its name: "limit must be ...", "context['a'] holds ...".
_FIELD: Final = re.compile(
    r"(?!(?:must|is|line|subscribe)\b)([a-z]\w*(?:\.\w+|\[[^\]\s]*\])*) "
    r"(?:must|has|had|holds|is|would|reaches|needs|cannot|may|names)\b"
)


def problem_of(exc: Exception) -> dict[str, Any]:
    """Return the problem document of an error, whatever it is: ``type``, ``title``, ``status``, ``detail`` and more."""
    if isinstance(exc, HTTPException):
        return _of_http(exc)
    if isinstance(exc, RequestValidationError):
        return _of_request(exc.errors())
    status = _status(exc)
    if status is None:
        return _problem(HTTPStatus.INTERNAL_SERVER_ERROR, _FAULT)
    problem = _problem(status, _SAID.get(status) or str(exc), type_=PROBLEM_TYPES[status])
    if isinstance(exc, SessionConflictError) and exc.version is not None:
        problem["version"] = exc.version
    if status is HTTPStatus.UNPROCESSABLE_ENTITY and (named := _FIELD.match(str(exc))):
        problem["errors"] = [{"field": named[1], "detail": str(exc)}]
    return problem


def problem_response(exc: Exception) -> Response:
    """Return the answer to a request that failed with an error."""
    headers = dict(exc.headers or {}) if isinstance(exc, HTTPException) else {}
    problem = problem_of(exc)
    status = problem["status"]
    if status in {HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED} or status < HTTPStatus.OK:
        return Response(status_code=status, headers=headers)
    if status == HTTPStatus.SERVICE_UNAVAILABLE and "retry-after" not in {name.lower() for name in headers}:
        headers["Retry-After"] = str(RETRY_AFTER)
    if isinstance(exc, RateLimitExceededError):
        headers["Retry-After"] = str(max(math.ceil(exc.retry_after), 1))
    # In ASCII: names of a client's fields may hold lone surrogates, which have no UTF-8 form.
    return Response(json.dumps(problem, default=str), status, headers, MEDIA_TYPE)


def add_problem_handlers(app: FastAPI) -> None:
    """Let an application answer errors with problem documents, and show them in its OpenAPI. Once is enough.

    Errors of this package: not found 404; conflict 409, with the ``version`` that stands; an unusable value 422, with
    the field in ``errors``; a rate limit 429, with Retry-After; a timeout 504; Redis or the database that does not
    serve 503, with Retry-After. FastAPI's own errors of validation and every HTTPException keep their status and
    headers. All else is a 500 without details.

    :raises RuntimeStateError: the application has started, and ignores handlers that are added now.
    """
    if app.exception_handlers.get(AgentServiceError) is _answer:
        return
    if app.middleware_stack is not None:
        raise RuntimeStateError("the application has started, so it takes no handlers any more; call this before")
    for kind in (AgentServiceError, HTTPException, RequestValidationError):
        app.add_exception_handler(kind, _answer)
    app.add_exception_handler(Exception, _answer_fault)
    show_problems(app)


async def _answer(connection: HTTPConnection, exc: Exception) -> Response:
    if isinstance(exc, AgentServiceError) and (_status(exc) is None or connection.scope["type"] != "http"):
        raise exc
    return problem_response(exc)


async def _answer_fault(_connection: HTTPConnection, exc: Exception) -> Response:
    return problem_response(exc)


def _status(exc: BaseException) -> HTTPStatus | None:
    """Return the status of an error of ours; None for a fault of the service."""
    for kinds, status in _STATUSES:
        if isinstance(exc, kinds):
            return status
    # Stores of contexts and states chain what failed beneath them.
    if isinstance(exc, AgentServiceError) and any(isinstance(each, _UNAVAILABLE) for each in _causes(exc)):
        return HTTPStatus.SERVICE_UNAVAILABLE
    return None


def _causes(exc: BaseException) -> Iterator[BaseException]:
    while exc.__cause__ is not None:
        exc = exc.__cause__
        yield exc


def _problem(status: int, detail: str | None, *, type_: str = "about:blank") -> dict[str, Any]:
    problem = {"type": type_, "title": phrase(status), "status": int(status)}
    return problem if detail is None else {**problem, "detail": detail}


def _of_http(exc: HTTPException) -> dict[str, Any]:
    if isinstance(exc.detail, str):
        return _problem(exc.status_code, None if exc.detail == phrase(exc.status_code) else exc.detail)
    members = exc.detail if isinstance(exc.detail, Mapping) else {"errors": exc.detail}
    return {**_problem(exc.status_code, None), **members, "status": exc.status_code}


def _of_request(errors: Sequence[Any]) -> dict[str, Any]:
    problem = _problem(
        HTTPStatus.UNPROCESSABLE_ENTITY,
        "The request is invalid; see errors.",
        type_=PROBLEM_TYPES[HTTPStatus.UNPROCESSABLE_ENTITY],
    )
    named = [_of_field(each["loc"], each["msg"]) for each in errors[:_MOST_ERRORS]]
    return {**problem, "errors": named}


def _of_field(location: Sequence[int | str], message: str) -> dict[str, Any]:
    # What a handler has validated itself has no place in the request, and all of a model has no path.
    path = list(location)
    place = {"in": path.pop(0)} if path and path[0] in _PLACES else {}
    field = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path).removeprefix(".")
    return {**place, **({"field": field} if field else {}), "detail": message}
