"""Events as ADK stores them in tables: as one JSON document, or, before, with a column for each field."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final, Protocol

from agent_service.core.errors import ConfigurationError, SessionValueError, UndecodableError
from agent_service.infrastructure.database.foreign import Row, SourceTable
from agent_service.integrations.importing.conversations import Item, Unreadable, moment_of, parse_object
from agent_service.integrations.importing.pickled import NotPlainError, read_pickle

try:
    from agent_service.integrations.adk.events import client_id_of, document_of, event_of, role_of
except ImportError as exc:
    raise ImportError('import_adk needs google-adk to read its events: pip install "agent-service[adk]"') from exc

__all__ = ["EventLayout", "layout_of"]


class EventLayout(Protocol):
    """How a row of the table of events holds an event."""

    columns: tuple[str, ...]
    """What is read of a row, besides ``timestamp`` and ``id``."""

    def read(self, row: Row, place: str) -> Item | Unreadable:
        """Return the event of a row."""
        ...


def layout_of(events: SourceTable) -> EventLayout:
    """Return the layout of a table.

    :raises ConfigurationError: it is neither of the two.
    """
    if "event_data" in events.columns:
        return _Documents()
    if "actions" in events.columns:
        return _Columns(events.columns)
    raise ConfigurationError(
        f"the table {events.name!r} of the source has neither event_data nor actions, as ADK makes it; it has "
        f"{', '.join(sorted(events.columns))}"
    )


_NOTHING: Final = (None, "null")
"""How a column of documents says that there is none: it is NULL, or a JSON null."""


class _Documents:
    columns: tuple[str, ...] = ("invocation_id", "event_data")

    def read(self, row: Row, place: str) -> Item | Unreadable:
        data: dict[str, Any] | str = {} if row["event_data"] in _NOTHING else parse_object(row["event_data"])
        if isinstance(data, str):
            return Unreadable(place, f"event_data {data}")
        timestamp = data.get("timestamp")
        data |= {
            "id": row["id"],
            "invocation_id": row["invocation_id"],
            "timestamp": _seconds(row["timestamp"]) if timestamp is None else timestamp,
        }
        return _item(data, row, place)


_DOCUMENTS: Final = (
    "content", "grounding_metadata", "custom_metadata", "usage_metadata", "citation_metadata", "input_transcription",
    "output_transcription",
)  # fmt: skip
_PLAIN: Final = ("author", "branch", "error_code", "error_message")
_FLAGS: Final = ("partial", "turn_complete", "interrupted")
_LONG_RUNNING: Final = "long_running_tool_ids_json"


class _Columns:
    """Fields in columns of their own; ``actions`` is a pickle, which is read as data."""

    def __init__(self, columns: frozenset[str]) -> None:
        known = ("invocation_id", "actions", *_PLAIN, *_FLAGS, *_DOCUMENTS, _LONG_RUNNING)
        self.columns = tuple(name for name in known if name in columns)

    def read(self, row: Row, place: str) -> Item | Unreadable:
        data: dict[str, Any] = {name: row[name] for name in ("id", "invocation_id", *_PLAIN) if name in row}
        data |= {name: None if row[name] is None else bool(row[name]) for name in _FLAGS if name in row}
        data["timestamp"] = _seconds(row["timestamp"])
        for name in _DOCUMENTS:
            if row.get(name) in _NOTHING:
                continue
            found = parse_object(row[name])
            if isinstance(found, str):
                return Unreadable(place, f"{name} {found}")
            data[name] = found
        try:
            data |= {"actions": _actions(row["actions"]), "long_running_tool_ids": _tools(row.get(_LONG_RUNNING))}
        except (NotPlainError, ValueError) as exc:
            return Unreadable(place, f"actions or tool ids: {exc}")
        return _item({name: value for name, value in data.items() if value is not None}, row, place)


def _actions(pickled: Any) -> Any:
    if pickled is None:
        return None
    found = read_pickle(bytes(pickled))
    if not isinstance(found, Mapping):
        raise NotPlainError("are no object")
    return {name: value for name, value in found.items() if value is not None}


def _tools(text: Any) -> Any:
    found: Any = parse_object(f'{{"ids": {text}}}') if text else {"ids": []}
    if isinstance(found, str):
        raise NotPlainError("the ids of long running tools are no JSON")
    return found["ids"]


def _seconds(stored: Any) -> float | None:
    moment = moment_of(stored)
    return None if moment is None else moment.timestamp()


def _item(data: dict[str, Any], row: Row, place: str) -> Item | Unreadable:
    try:
        event = event_of(data)
        document = document_of(event)
        stored = moment_of(row["timestamp"]) or datetime.fromtimestamp(event.timestamp, UTC)
        return Item(place, document, role_of(event), client_id_of(document), stored)
    except UndecodableError as exc:
        return Unreadable(place, str(exc))
    except SessionValueError:
        return Unreadable(place, "holds a value that has no JSON form")
    except (ValueError, OverflowError, OSError):
        return Unreadable(place, "has a timestamp that is no moment")
