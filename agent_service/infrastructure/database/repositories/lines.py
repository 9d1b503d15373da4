"""A user's sessions as JSON lines: a line for each session, followed by one for each of its messages.

A fork is written with everything it shows, as a session of its own. A message's role is written where its document has
none. Counters are not written: an import counts the messages.
"""

from collections.abc import AsyncIterable, AsyncIterator, Iterable
from datetime import datetime
from typing import Any, Final

from agent_service.core.errors import SessionValueError
from agent_service.infrastructure.database.append.message import PendingMessage, accept_message
from agent_service.infrastructure.database.models.message import SessionMessage
from agent_service.infrastructure.database.models.session import Session, set_own_fields
from agent_service.infrastructure.database.values.documents import dumps, encode_document, loads
from agent_service.infrastructure.database.values.validation import (
    require_count,
    require_identifier,
    require_moment,
    require_session_id,
)

__all__ = ["FORMAT", "MessageLine", "message_line", "read_lines", "session_line"]

FORMAT: Final = 1
"""Version of the lines; a reader refuses a newer one."""

MOST_SEQ: Final = 2**62
MOST_VERSION: Final = 2**30
"""The largest counters that an import takes. Beyond them the session could not be written much longer."""

_PLAIN = ("external_id", "agent_id", "title")
_MOMENTS = ("created_at", "updated_at", "last_activity_at")
_OPTIONAL_MOMENTS = ("completed_at", "deleted_at")


class MessageLine:
    """The message of one line."""

    __slots__ = ("client_id", "created_at", "message", "seq")

    def __init__(self, line: dict[str, Any], session: Session) -> None:
        if line.get("session_id") != str(session.id):
            raise SessionValueError(f"session_id is {line.get('session_id')!r:.80}, of the session above {session.id}")
        self.seq = require_count(line.get("seq"), "seq", most=session.last_seq)
        client_id = line.get("client_id")
        self.client_id: str | None = None if client_id is None else require_identifier(client_id, "client_id")
        self.created_at = _moment(line, "created_at")
        self.message: PendingMessage = accept_message(session.id, line.get("data"), self.client_id, line.get("role"))


def session_line(session: Session) -> str:
    """Return the line of a session."""
    moments = {name: getattr(session, name) for name in (*_MOMENTS, "expires_at", *_OPTIONAL_MOMENTS)}
    return dumps(
        {
            "type": "session",
            "format": FORMAT,
            "id": str(session.id),
            "user_id": str(session.user_id),
            **{name: getattr(session, name) for name in _PLAIN},
            "status": session.status.value,
            "context": session.context,
            "metadata": session.session_metadata,
            "last_seq": session.last_seq,
            "version": session.version,
            **{name: None if moment is None else moment.isoformat() for name, moment in moments.items()},
        }
    )


def message_line(session: Session, message: SessionMessage) -> str:
    """Return the line of a message that the session shows."""
    return dumps(
        {
            "type": "message",
            "session_id": str(session.id),
            "seq": message.seq,
            "client_id": message.client_id,
            "created_at": message.created_at.isoformat(),
            **({} if message.data.get("role") == message.role else {"role": message.role}),
            "data": message.data,
        }
    )


async def read_lines(lines: Iterable[str | bytes] | AsyncIterable[str | bytes]) -> AsyncIterator[Session | MessageLine]:
    """Return the sessions and messages of the lines, one after another; blank lines are skipped.

    :raises SessionValueError: naming the line that cannot be read, and why.
    """
    number, last = 0, 0
    session: Session | None = None
    async for line in _each(lines):
        number += 1
        try:
            found = _read(line, session, last)
        except (SessionValueError, UnicodeDecodeError) as exc:
            raise SessionValueError(f"line {number}: {exc}") from exc
        except RecursionError as exc:
            raise SessionValueError(f"line {number}: is nested too deep; store it flatter") from exc
        if isinstance(found, Session):
            session, last = found, 0
        elif found is not None:
            last = found.seq
        if found is not None:
            yield found


async def _each(lines: Any) -> AsyncIterator[Any]:
    if isinstance(lines, AsyncIterable):
        async for line in lines:
            yield line
    elif isinstance(lines, Iterable) and not isinstance(lines, str | bytes):
        for line in lines:
            yield line
    else:
        raise SessionValueError(f"lines must be the lines of an export, got {type(lines).__name__} {lines!r:.80}")


def _read(line: Any, session: Session | None, last: int) -> Session | MessageLine | None:
    if not isinstance(line, str | bytes):
        raise SessionValueError(f"must be text, not {type(line).__name__}: {line!r:.80}")
    text = line.decode() if isinstance(line, bytes) else line
    if not text.strip():
        return None
    try:
        document = loads(text)
    except (ValueError, RecursionError) as exc:
        raise SessionValueError(f"is no JSON ({exc}): {text!r:.80}") from exc
    kind = document.get("type") if isinstance(document, dict) else None
    if kind == "session":
        return _session(document)
    if kind != "message":
        raise SessionValueError(f"is neither a session nor a message: {text!r:.80}")
    if session is None:
        raise SessionValueError("is a message, but no session came before it")
    message = MessageLine(document, session)
    if message.seq <= last:
        raise SessionValueError(f"seq {message.seq} follows {last}; messages come in their order, each once")
    return message


def _session(line: dict[str, Any]) -> Session:
    if line.get("format") != FORMAT:
        raise SessionValueError(f"format is {line.get('format')!r:.80}; this version reads format {FORMAT}")
    documents = {"context": line.get("context", {}), "metadata": line.get("metadata", {})}
    for name, document in documents.items():
        encode_document(document, name, nul=name == "metadata")
    session = Session(
        id=require_session_id(line.get("id"), "id"),
        user_id=require_identifier(line.get("user_id"), "user_id"),
        status=line.get("status"),
        **{name: line.get(name) for name in _PLAIN},
        **documents,
    )
    session.expires_at = _moment(line, "expires_at")
    set_own_fields(
        session,
        last_seq=require_count(line.get("last_seq"), "last_seq", least=0, most=MOST_SEQ),
        version=require_count(line.get("version"), "version", most=MOST_VERSION),
        **{name: _moment(line, name) for name in _MOMENTS},
        **{name: None if line.get(name) is None else _moment(line, name) for name in _OPTIONAL_MOMENTS},
    )
    return session


def _moment(line: dict[str, Any], name: str) -> datetime:
    value = line.get(name)
    try:
        moment = datetime.fromisoformat(value) if isinstance(value, str) else value
    except ValueError:
        moment = value
    return require_moment(moment, name)
