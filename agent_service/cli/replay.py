"""``agent-service replay``: send a trace through the cache, or conversations through the database, and report."""

import asyncio
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

from agent_service.cli.console import Console, printable
from agent_service.cli.sessions import TENANT, USER, SessionsReport, replay_sessions
from agent_service.cli.trace import replay_trace
from agent_service.infrastructure.database.connection import close_database, get_session
from agent_service.infrastructure.database.models.session import Session
from agent_service.infrastructure.database.repositories.session import SessionRepository

__all__ = ["DEFAULT_ENTRIES", "DEFAULT_WORKERS", "replay", "show_sessions", "show_trace"]

DEFAULT_ENTRIES = 10_000
DEFAULT_WORKERS = 4
MISMATCHED = 1
PAGE_SIZE = 5


def replay(arguments: Namespace, console: Console) -> int:
    """Replay the given files; exit code 1 when a conversation did not come back as it was stored."""
    if arguments.trace:
        asyncio.run(show_trace(arguments.trace, arguments.entries, console))
        return 0
    report = asyncio.run(show_sessions(arguments.sessions, arguments.workers, console))
    return MISMATCHED if report.mismatches else 0


async def show_trace(path: Path, entries: int, console: Console) -> None:
    """Replay a trace and show the result."""
    with console.progress(f"Replaying {path.name} with {entries:,} entries") as advance:
        report = await replay_trace(path, entries, advance)
    console.result(
        {
            "requests": report.requests,
            "hits": report.hits,
            "hit_ratio": round(report.hit_ratio, 6),
            "seconds": round(report.seconds, 3),
        },
        requests_per_second=report.requests_per_second,
    )


async def show_sessions(paths: list[Path], workers: int, console: Console) -> SessionsReport:
    """Replay conversations and show the result, then the user's statistics, a search and a page."""
    try:
        with console.progress(f"Storing and comparing {', '.join(path.name for path in paths)}") as advance:
            report = await replay_sessions(paths, workers, advance)
        console.result(
            {
                "conversations": report.conversations,
                "messages": report.messages,
                "mismatches": report.mismatches,
                "seconds": round(report.seconds, 3),
            }
        )
        if not console.as_json and report.conversations:
            await _summarise(console)
    finally:
        await close_database()
    return report


async def _summarise(console: Console) -> None:
    async with get_session() as db:
        repository = SessionRepository(db, TENANT)
        stats = await repository.get_session_stats(USER)
        page = await repository.get_paginated_user_sessions(USER, page=1, page_size=PAGE_SIZE)
        term = _search_term(page.items)
        found = await repository.search_sessions(USER, term, limit=PAGE_SIZE)
    console.say()
    console.say(
        f"Now stored for user {USER!r}: {stats.total_sessions:,} sessions with {stats.total_messages:,} messages, "
        f"{stats.avg_messages_per_session:.1f} a session"
    )
    console.say(f"A search for {term!r} finds:")
    _list(console, found)
    console.say(f"Page {page.page} of {page.total_pages:,}, most recent first:")
    _list(console, page.items)


def _list(console: Console, sessions: Sequence[Session]) -> None:
    for session in sessions:
        console.say(f"  {session.total_messages:4} messages  {printable(session.title)}")


def _search_term(sessions: Sequence[Session]) -> str:
    """Return the longest word of the newest titles: something that a search can find."""
    words = [word for session in sessions for word in (session.title or "").split() if word.isalnum()]
    return max(words, key=len, default="a")
