"""What kinds of problem documents there are."""

from http import HTTPStatus
from typing import Final

__all__ = ["MEDIA_TYPE", "PROBLEM_TYPES", "phrase"]

MEDIA_TYPE: Final = "application/problem+json"

PROBLEM_TYPES: Final = {
    HTTPStatus.NOT_FOUND: "urn:agent-service:not-found",
    HTTPStatus.CONFLICT: "urn:agent-service:conflict",
    HTTPStatus.UNPROCESSABLE_ENTITY: "urn:agent-service:invalid-value",
    HTTPStatus.TOO_MANY_REQUESTS: "urn:agent-service:rate-limit",
    HTTPStatus.GATEWAY_TIMEOUT: "urn:agent-service:timeout",
    HTTPStatus.SERVICE_UNAVAILABLE: "urn:agent-service:unavailable",
}
"""The ``type`` of a problem that is an error of this package, by its status. Other problems are ``about:blank``."""


def phrase(status: int) -> str:
    """Return the name of a status; of one that has none, that of its class."""
    known = set(HTTPStatus)
    return HTTPStatus(status if status in known else status // 100 * 100).phrase
