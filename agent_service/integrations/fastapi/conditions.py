"""Conditional requests on sessions: versions as entity tags, and keys that make a repeated append harmless.

A session's tag is its version and a hash of what is shown: ``"3-5f0c..."``. If-None-Match compares the whole tag, so
304 means that nothing shown has changed. If-Match compares the version alone, as ``expected_version`` does: messages
that were appended in between do not stand in the way of a change of the session.
"""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final, NoReturn, TypeAlias, TypeVar

from fastapi import Depends, Header, HTTPException, Response, status
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel

from agent_service.infrastructure.database.models.message import SessionMessage
from agent_service.infrastructure.database.models.session import Session
from agent_service.infrastructure.database.values.validation import MAX_IDENTIFIER, MAX_VERSION
from agent_service.integrations.fastapi.entity_tags import EntityTag, EntityTags, content_tag, parse_tags

__all__ = [
    "REPLAYED",
    "IdempotencyKey",
    "IfMatch",
    "IfNoneMatch",
    "expected_version",
    "refuse",
    "require_same",
    "require_version",
    "tagged",
    "unless_known",
]

Shown = TypeVar("Shown", bound=BaseModel)

REPLAYED: Final = "Idempotency-Replayed"
"""Header of an answer that repeats an earlier one; its value is ``true``."""

# A string of RFC 8941, as the draft asks, or the same text without quotes, as most clients send it.
_QUOTED: Final = re.compile(r'"((?:[\x20\x21\x23-\x5b\x5d-\x7e]|\\["\\])*)"')
_BARE: Final = re.compile(r"[\x21\x23-\x2b\x2d-\x3a\x3c-\x5b\x5d-\x7e]+")
_VERSION: Final = re.compile(r"([1-9][0-9]{0,9})(?:-[0-9a-f]+)?")


def refuse(place: str, name: str, problem: str, given: Any) -> NoReturn:
    """Refuse a request as FastAPI refuses what it validates itself: 422, naming the field."""
    raise RequestValidationError([{"type": "value_error", "loc": (place, name), "msg": problem, "input": given}])


def _tags(name: str, lines: Sequence[str] | None) -> EntityTags | None:
    if lines is None:
        return None
    try:
        return parse_tags(lines)
    except ValueError as exc:
        refuse("header", name, str(exc), lines)


async def _if_match(
    lines: Annotated[
        list[str] | None,
        Header(alias="If-Match", description="Change only if the session's version is that of one of these ETags."),
    ] = None,
) -> EntityTags | None:
    return _tags("If-Match", lines)


async def _if_none_match(
    lines: Annotated[
        list[str] | None, Header(alias="If-None-Match", description="Answer 304 if the content has one of these ETags.")
    ] = None,
) -> EntityTags | None:
    return _tags("If-None-Match", lines)


async def _idempotency_key(
    lines: Annotated[
        list[str] | None,
        Header(
            alias="Idempotency-Key",
            description="Your own id of this message, such as a UUID. A repetition adds nothing and gives the first.",
        ),
    ] = None,
) -> str | None:
    if lines is None:
        return None
    text = ",".join(lines).strip()
    quoted = _QUOTED.fullmatch(text)
    if quoted is None and _BARE.fullmatch(text) is None:
        refuse("header", "Idempotency-Key", "must be one key of printable ASCII, such as a UUID", text[:80])
    key = text if quoted is None else re.sub(r"\\(.)", r"\1", quoted[1])
    if not 1 <= len(key) <= MAX_IDENTIFIER:
        refuse("header", "Idempotency-Key", f"must have 1 to {MAX_IDENTIFIER} characters, has {len(key)}", key[:80])
    return key


IfMatch: TypeAlias = Annotated[EntityTags | None, Depends(_if_match)]
IfNoneMatch: TypeAlias = Annotated[EntityTags | None, Depends(_if_none_match)]
IdempotencyKey: TypeAlias = Annotated[str | None, Depends(_idempotency_key)]


def tagged(shown: Shown, version: int, response: Response) -> Shown:
    """Set the ETag of an answer, and return it."""
    response.headers["ETag"] = str(_tag(shown, version))
    return shown


def unless_known(shown: Shown, version: int, response: Response, condition: EntityTags | None) -> "Shown | Response":
    """Return what is shown, or 304 if the caller knows it already, as If-None-Match says."""
    tag = _tag(shown, version)
    response.headers["ETag"] = str(tag)
    if condition is None or not condition.match_weakly(tag):
        return shown
    return Response(status_code=status.HTTP_304_NOT_MODIFIED, headers=dict(response.headers))


def _tag(shown: BaseModel, version: int) -> EntityTag:
    return content_tag(shown.model_dump_json().encode(), f"{version}-")


def require_version(session: Session, condition: EntityTags | None) -> None:
    """Refuse a change of a session whose version If-Match does not list: 412.

    Whoever goes on to change it holds the session's lock.
    """
    if condition is not None and not condition.any and session.version not in _versions(condition):
        raise HTTPException(
            status.HTTP_412_PRECONDITION_FAILED,
            f"If-Match: the session is at version {session.version}; read it and decide again",
        )


def expected_version(session: Session, condition: EntityTags | None) -> int | None:
    """Return the version that If-Match expects: the session's own if it is listed, another one if not."""
    if condition is None or condition.any:
        return None
    # 0 is the version of no session.
    return session.version if session.version in _versions(condition) else 0


def _versions(condition: EntityTags) -> set[int]:
    found = (_VERSION.fullmatch(each) for each in condition.strong())
    return {version for each in found if each is not None and (version := int(each[1])) <= MAX_VERSION}


def require_same(
    stored: SessionMessage, given: Mapping[str, Any], role: str | None, *, place: str, name: str, client_id: str
) -> None:
    """Refuse a client id that another message was appended under, or the same one in another role.

    :param role: the one that was given beside the message.
    """
    if _canonical(stored.data) != _canonical(given) or stored.role != (given.get("role") or role):
        problem = f"another message was appended under this key as seq {stored.seq}; a new message needs a new key"
        refuse(place, name, problem, client_id)


def _canonical(message: Mapping[str, Any]) -> str:
    return json.dumps(message, sort_keys=True)
