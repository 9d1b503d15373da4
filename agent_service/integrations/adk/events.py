"""Events of ADK as JSON documents, and back."""

import json
from collections.abc import Mapping
from hashlib import blake2b
from typing import Any, Final

import orjson
from google.adk.events.event import Event
from pydantic import ValidationError
from pydantic_core import PydanticSerializationError, to_jsonable_python

from agent_service.core.errors import SessionValueError, UndecodableError
from agent_service.integrations.adk.scopes import is_temporary

__all__ = ["client_id_of", "document_of", "event_of", "json_state", "role_of", "timestamp_of"]

_TOOL: Final = "tool"
_STATE: Final = {"actions": {"state_delta"}}


def document_of(event: Event) -> dict[str, Any]:
    """Return an event as the JSON object that is stored, the one that ADK itself stores; the event is not changed.

    Fields that are None are left out, bytes are base64, and state under ``temp:`` is left out, which is never stored.

    :raises SessionValueError: ``event`` is none, or a value has no JSON form; it is named.
    """
    if not isinstance(event, Event):
        raise SessionValueError(f"event must be an ADK Event, not {type(event).__name__}")
    delta = {key: value for key, value in event.actions.state_delta.items() if not is_temporary(key)}
    kept = json_state(delta, "event.actions.state_delta")
    try:
        document: dict[str, Any] = event.model_dump(mode="json", exclude_none=True, exclude=_STATE)
    except (PydanticSerializationError, ValueError) as exc:
        raise SessionValueError(f"event {event.id!r:.80} has no JSON form: {exc}; convert its values first") from exc
    document["actions"] = {"state_delta": kept, **document["actions"]}
    return document


def event_of(document: Mapping[str, Any]) -> Event:
    """Return the event that :func:`document_of` made a document of, or that ADK stored as JSON.

    :raises UndecodableError: it is no event.
    """
    try:
        return Event.model_validate(dict(document))
    except (ValidationError, TypeError) as exc:
        raise UndecodableError(f"a stored document is no event of ADK: {_problems(exc)}") from None


def timestamp_of(document: Mapping[str, Any]) -> float:
    """Return the time of the event that a document is of, without decoding the rest.

    :raises UndecodableError: it is no event.
    """
    moment = document.get("timestamp")
    if isinstance(moment, bool) or not isinstance(moment, int | float):
        raise UndecodableError("a stored document is no event of ADK: it has no timestamp; read it by get_messages()")
    return moment


def role_of(event: Event) -> str:
    """Return the role of an event among messages: ``user``, ``tool`` for results of tools, else ``assistant``."""
    if event.get_function_responses():
        return _TOOL
    return "user" if event.author == "user" else "assistant"


def client_id_of(document: Mapping[str, Any]) -> str:
    """Return the id under which an event is appended: equal for equal events, another one for any others.

    An event that is delivered twice is stored once. ADK's own ids are not enough: two events with one id and different
    fields are two events.
    """
    try:
        text = orjson.dumps(document, option=orjson.OPT_SORT_KEYS)
    except TypeError:  # an integer of more than 64 bits; a lone surrogate, which appending refuses
        text = json.dumps(document, sort_keys=True).encode()
    return blake2b(text, digest_size=24).hexdigest()


def json_state(state: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return state as JSON: models, dates and bytes in the form that pydantic gives them.

    :param name: what errors call it.
    :raises SessionValueError: a value has no JSON form; it is named. ADK would store its ``repr`` instead.
    """
    converted: dict[str, Any] = {}
    for key, value in state.items():
        if not isinstance(key, str):
            raise SessionValueError(f"{name} has a key that is no string: {key!r:.80}; use str(key)")
        try:
            converted[key] = to_jsonable_python(value, bytes_mode="base64", inf_nan_mode="constants")
        except (PydanticSerializationError, ValueError) as exc:
            raise SessionValueError(
                f"{name}[{key!r:.80}] is a {type(value).__name__}, which has no JSON form; store plain values, or use "
                f"a key with temp: for what this invocation alone needs"
            ) from exc
    return converted


def _problems(error: Exception) -> str:
    """Say what is wrong without the values, which belong to a conversation."""
    if not isinstance(error, ValidationError):
        return type(error).__name__
    places = {".".join(map(str, each["loc"])): each["type"] for each in error.errors(include_input=False)}
    return ", ".join(f"{place} ({kind})" for place, kind in list(places.items())[:5])
