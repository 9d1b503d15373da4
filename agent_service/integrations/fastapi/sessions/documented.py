"""What OpenAPI says about answers that are not plain results."""

from http import HTTPStatus
from typing import Any, Final, TypeAlias

from agent_service.integrations.fastapi.conditions import REPLAYED
from agent_service.integrations.fastapi.openapi import problem_responses
from agent_service.integrations.fastapi.problem_types import MEDIA_TYPE, PROBLEM_TYPES

__all__ = ["errors", "replayed_response", "stream_response", "tagged_response"]

_Responses: TypeAlias = dict[int | str, dict[str, Any]]

_DETAILS: Final = {
    401: "the token has expired; sign in again",
    403: "user_id: only your own sessions are yours to ask for",
    404: "there is no session 0198f3c2-7a51-7c3e-9d24-5b1f0a6e8c11",
    409: "the id 0198f3c2-7a51-7c3e-9d24-5b1f0a6e8c11 belongs to another session; load that one, or choose another",
    412: "If-Match: the session is at version 4; read it and decide again",
    413: "the body may have at most 1048576 bytes; send less at once",
    422: "limit must be an integer from 1 to 1000",
    503: "What this request needs does not serve now; try again later.",
}

_ETAG: Final = {"ETag": {"description": "The session's version, and a hash.", "schema": {"type": "string"}}}


def errors(*statuses: int) -> _Responses:
    """Describe answers that are problem documents, each with an example."""
    described = problem_responses(*statuses)
    for status in statuses:
        detail = _DETAILS[status]
        problem = {"type": PROBLEM_TYPES.get(HTTPStatus(status), "about:blank"), "status": status, "detail": detail}
        described[status]["content"][MEDIA_TYPE]["example"] = problem | {"title": HTTPStatus(status).phrase}
    return described


def tagged_response(*codes: int) -> _Responses:
    """Describe answers that have an ETag."""
    return {code: {"description": HTTPStatus(code).phrase, "headers": _ETAG} for code in codes}


def replayed_response(model: Any) -> _Responses:
    """Describe the answer that repeats an earlier one."""
    header = {REPLAYED: {"description": "true", "schema": {"type": "string"}}}
    return {200: {"description": "It was appended before, and is as it was.", "model": model, "headers": header}}


def stream_response(media_type: str, description: str) -> _Responses:
    """Describe an answer that is a stream."""
    return {200: {"description": description, "content": {media_type: {"schema": {"type": "string"}}}}}
