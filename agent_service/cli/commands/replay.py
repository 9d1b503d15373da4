"""``agent-service replay``: send a trace through the cache, or conversations through the database, and report."""

import asyncio
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from agent_service.cli.console import Console, printable
from agent_service.cli.grammar import add_command, positive
from agent_service.cli.replaying import TENANT, USER, SessionsReport, remove_sessions, replay_sessions
from agent_service.cli.trace import replay_trace
from agent_service.infrastructure.database.connection import close_database, get_session
from agent_service.infrastructure.database.models.session import Session
from agent_service.infrastructure.database.repositories.session import SessionRepository

__all__ = ["DEFAULT_WORKERS", "register", "show_sessions", "show_trace"]

DEFAULT_ENTRIES = 10_000
DEFAULT_WORKERS = 4
MISMATCHED = 1
PAGE_SIZE = 5


def register(commands: Any) -> None:
    """Add ``replay``."""
    parser = add_command(
        commands,
        "replay",
        _replay,
        "send a cache trace through a memory cache, or store conversations in the database of DATABASE_URL,"
        "\nread them back, compare and remove them",
        "replay --trace trace.csv.gz --entries 1000",
        "replay --sessions monday.jsonl tuesday.jsonl.gz --workers 8 --keep",
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "--trace", type=Path, metavar="FILE", help="CSV, plain or gzip, with the header timestamp,key[,size]"
    )
    what.add_argument(
        "--sessions",
        type=Path,
        nargs="+",
        metavar="FILE",
        help="JSON lines, plain or gzip, one conversation a line: an object with session_id and messages",
    )
    parser.add_argument(
        "--entries",
        type=positive,
        default=DEFAULT_ENTRIES,
        metavar="N",
        help=f"entries that the cache holds (trace only; default {DEFAULT_ENTRIES:,})",
    )
    parser.add_argument(
        "--workers",
        type=positive,
        default=DEFAULT_WORKERS,
        metavar="N",
        help=f"conversations under way at once (sessions only; default {DEFAULT_WORKERS})",
    )
    parser.add_argument(
        "--keep",
        action="store_true",
        help='leave the sessions in the database, as those of the user and tenant "replay" (sessions only)',
    )


def _replay(arguments: Namespace, console: Console) -> int:
    """Replay the given files; exit code 1 when a conversation did not come back as it was stored."""
    if arguments.trace:
        asyncio.run(show_trace(arguments.trace, arguments.entries, console))
        return 0
    report = asyncio.run(show_sessions(arguments.sessions, arguments.workers, console, keep=arguments.keep))
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


async def show_sessions(paths: list[Path], workers: int, console: Console, *, keep: bool) -> SessionsReport:
    """Replay conversations and show the result, then the user's statistics, a search and a page.

    :param keep: leave what was stored; what was there before is left in any case.
    """
    report = SessionsReport()
    try:
        with console.progress(f"Storing and comparing {', '.join(path.name for path in paths)}") as advance:
            await replay_sessions(paths, workers, advance, report)
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
        try:
            if not keep:
                await remove_sessions(report.created)
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
