"""Storing conversations through the repository, reading them back and comparing them as JSON."""

import asyncio
import json
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import Any
from uuid import UUID

from agent_service.cli.conversations import Conversation, read_conversations
from agent_service.cli.reading import InputFileError
from agent_service.core.errors import SessionValueError
from agent_service.infrastructure.database.connection import get_session
from agent_service.infrastructure.database.models.session import Session
from agent_service.infrastructure.database.repositories.session import SessionRepository

__all__ = ["TENANT", "USER", "SessionsReport", "remove_sessions", "replay_sessions"]

TENANT = "replay"
USER = "replay"


@dataclass(slots=True)
class SessionsReport:
    """Conversations and messages stored, and how many messages did not come back unchanged."""

    conversations: int = 0
    messages: int = 0
    mismatches: int = 0
    seconds: float = 0.0
    created: list[UUID] = field(default_factory=list, repr=False)
    """The sessions that were not there before."""


async def replay_sessions(
    paths: Sequence[Path], workers: int, advance: Callable[[float], None], report: SessionsReport
) -> None:
    """Store every conversation as a session of the user and tenant "replay", and compare what comes back.

    Messages carry client ids, so what an earlier replay stored is not stored again. A message that it
    stored with another text counts as a mismatch. Each conversation is a transaction of its own.

    :param workers: how many conversations are stored at once.
    :param report: is filled in as the work goes on, so that it is true after an error as well.
    :param advance: called with the fraction of the files whose conversations were compared, 0 to 1.
    :raises InputFileError: for a file, line or message that cannot be used; conversations before it are stored.
    """
    conversations = read_conversations(paths)
    started = time.perf_counter()
    working = [asyncio.create_task(_work(conversations, report, advance)) for _ in range(workers)]
    try:
        await asyncio.shield(asyncio.gather(*working))
    finally:
        # After an error or Ctrl-C each worker finishes the conversation under way: no transaction is torn apart.
        conversations.close()
        await asyncio.wait(working)
        report.seconds = time.perf_counter() - started


async def remove_sessions(ids: Sequence[UUID]) -> None:
    """Remove sessions of the tenant "replay" for good."""
    for each in ids:
        async with get_session() as db:
            await SessionRepository(db, TENANT).delete(each, hard=True)


async def _work(
    conversations: Iterator[Conversation], report: SessionsReport, advance: Callable[[float], None]
) -> None:
    for each in conversations:
        session_id, created = await _store(each)
        if created:
            report.created.append(session_id)
        stored = await _read(session_id)
        report.conversations += 1
        report.messages += len(each.messages)
        report.mismatches += _differences(each.messages, stored)
        advance(each.fraction)


async def _store(conversation: Conversation) -> tuple[UUID, bool]:
    """Store a conversation; return its session's id, and whether the session is new."""
    try:
        async with get_session() as db:
            repository = SessionRepository(db, TENANT)
            session = await repository.get_by_external_id(conversation.external_id)
            created = session is None
            if session is None:
                session = await repository.create(
                    Session(
                        user_id=USER,
                        agent_id=conversation.agent_id,
                        external_id=conversation.external_id,
                        title=conversation.title,
                        metadata=conversation.metadata,
                    )
                )
            client_ids = [f"message-{number}" for number in range(1, len(conversation.messages) + 1)]
            await repository.add_messages_to_session(session.id, conversation.messages, client_ids=client_ids)
    except SessionValueError as exc:
        raise InputFileError(f"{conversation.line}: {exc}") from exc
    return session.id, created


async def _read(session_id: UUID) -> list[dict[str, Any]]:
    async with get_session() as db:
        session = await SessionRepository(db, TENANT).get_session_with_messages(session_id)
    return [message.to_dict() for message in session.messages] if session else []


def _differences(given: Iterable[dict[str, Any]], stored: Iterable[dict[str, Any]]) -> int:
    return sum(_json(one) != _json(other) for one, other in zip_longest(given, stored))


def _json(message: dict[str, Any] | None) -> str:
    return json.dumps(message, ensure_ascii=False)
