"""``agent-service sessions ...``: look at conversations, move them, remove them."""

import gzip
import io
import json
import sys
from argparse import Namespace
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO, cast
from uuid import UUID

from agent_service.cli.console import Console, printable
from agent_service.cli.grammar import Parser, Run, add_command, add_group, add_tenant, duration, positive
from agent_service.cli.reading import InputFileError, open_lines
from agent_service.cli.running import with_database
from agent_service.core.errors import ConfigurationError, SessionNotFoundError
from agent_service.infrastructure.database.engine.manager import DatabaseManager
from agent_service.infrastructure.database.maintenance.erasure import erase_user
from agent_service.infrastructure.database.models.message import SessionMessage
from agent_service.infrastructure.database.models.session import Session
from agent_service.infrastructure.database.repositories.session import SessionRepository

__all__ = ["register"]

DIFFERENT = 1
SHOWN = 50
TEXT_LENGTH = 200
_LISTED = ("id", "status", "title", "total_messages", "last_activity_at")


def register(commands: Any) -> None:
    """Add ``sessions`` and what is below it."""
    verbs = add_group(commands, "sessions", "list, show, search, move and remove the conversations of a tenant")

    listing = _add(
        verbs, "list", _list, "list the sessions of a user, the most recent first", "sessions list --user ann"
    )
    _add_user(listing)
    _add_limit(listing, "sessions")
    listing.add_argument("--cursor", metavar="TEXT", help="go on behind a page: its next_cursor")

    showing = _add(verbs, "show", _show, "show a session and its last messages", "sessions show 0192... --limit 20")
    showing.add_argument("session", metavar="ID", help="the session's id, or its external id")
    _add_limit(showing, "messages")

    searching = _add(
        verbs, "search", _search, "search the messages of a user", 'sessions search "train to Bergen" --user ann'
    )
    searching.add_argument("term", metavar="TEXT", help="what the messages contain")
    _add_user(searching)
    _add_limit(searching, "messages")

    exporting = _add(
        verbs,
        "export",
        _export,
        "write everything stored of a user as JSON lines",
        "sessions export --user ann --output ann.jsonl.gz",
        for_machines=False,
    )
    _add_user(exporting)
    exporting.add_argument(
        "--output", type=Path, metavar="FILE", help="where to; compressed if it ends in .gz (default: standard output)"
    )

    importing = _add(
        verbs,
        "import",
        _import,
        "store the sessions of an export; those that exist are left",
        "sessions import ann.jsonl.gz",
    )
    importing.add_argument("file", type=Path, metavar="FILE", help="what export wrote, plain or gzip")

    erasing = _add(
        verbs, "erase", _erase, "remove everything stored of a user, for good", "sessions erase --user ann --yes"
    )
    _add_user(erasing)
    erasing.add_argument("--yes", action="store_true", help="do not ask")

    purging = _add(
        verbs, "purge", _purge, "remove for good what was deleted some time ago", "sessions purge --older-than 30d"
    )
    purging.add_argument(
        "--older-than", type=duration, required=True, metavar="TIME", help="such as 12h, 30d or 2w", dest="older_than"
    )

    counting = _add(
        verbs,
        "recount",
        _recount,
        "compare the counters of sessions with their messages, and correct them",
        "sessions recount",
    )
    counting.add_argument("session", nargs="?", metavar="ID", help="one session (default: all of the tenant)")


def _add(verbs: Any, name: str, run: Run, summary: str, example: str, *, for_machines: bool = True) -> Parser:
    parser = add_command(verbs, name, run, summary, example, for_machines=for_machines)
    add_tenant(parser)
    return parser


def _add_user(parser: Parser) -> None:
    parser.add_argument("--user", required=True, metavar="ID", help="the user")


def _add_limit(parser: Parser, what: str) -> None:
    parser.add_argument(
        "--limit", type=positive, default=SHOWN, metavar="N", help=f"the most {what} to show (default {SHOWN})"
    )


def _list(arguments: Namespace, console: Console) -> int:
    async def work(database: DatabaseManager) -> int:
        async with database.session() as db:
            repository = SessionRepository(db, arguments.tenant)
            page = await repository.get_user_sessions_page(
                arguments.user, limit=arguments.limit, cursor=arguments.cursor
            )
        rows = [[getattr(each, column) for column in _LISTED] for each in page.items]
        console.table("sessions", _LISTED, rows, next_cursor=page.next_cursor)
        if page.next_cursor is not None:
            console.note(f"there are more: --cursor {page.next_cursor}")
        return 0

    return with_database(work)


def _show(arguments: Namespace, console: Console) -> int:
    async def work(database: DatabaseManager) -> int:
        async with database.session() as db:
            repository = SessionRepository(db, arguments.tenant)
            session = await _find(repository, arguments.session)
            messages = await repository.get_messages(session.id, limit=arguments.limit)
        values = {
            name: getattr(session, name)
            for name in (
                *("id", "external_id", "user_id", "agent_id", "title", "status", "total_messages", "total_tokens"),
                *("version", "created_at", "last_activity_at", "expires_at", "parent_session_id", "fork_seq"),
            )
        }
        if console.as_json:
            values |= {"context": session.context, "metadata": session.session_metadata}
            values |= {"messages": [_as_json(each) for each in messages]}
        console.result({name: value for name, value in values.items() if value is not None or console.as_json})
        console.say()
        for message in messages:
            console.say(f"{message.seq:>6}  {message.role:10}  {_shortened(message.to_dict())}")
        return 0

    return with_database(work)


async def _find(repository: SessionRepository, name: str) -> Session:
    try:
        found = await repository.get(UUID(name))
    except ValueError:
        found = None
    found = found or await repository.get_by_external_id(name)
    if found is None:
        raise SessionNotFoundError(
            f"no session {printable(name)!r} in the tenant {repository.tenant_id!r}; agent-service sessions list shows "
            "those of a user, and --tenant names another tenant"
        )
    return found


def _as_json(message: SessionMessage) -> dict[str, Any]:
    return {"seq": message.seq, "role": message.role, "created_at": message.created_at, "message": message.to_dict()}


def _shortened(document: Mapping[str, Any]) -> str:
    content = document.get("content")
    text = content if isinstance(content, str) else json.dumps(document, ensure_ascii=False)
    return printable(text, TEXT_LENGTH)


def _search(arguments: Namespace, console: Console) -> int:
    async def work(database: DatabaseManager) -> int:
        async with database.session() as db:
            repository = SessionRepository(db, arguments.tenant)
            hits = await repository.search_messages(arguments.user, arguments.term, limit=arguments.limit)
        rows = [[each.session.id, each.seq, round(each.rank, 4), each.snippet] for each in hits]
        console.table("hits", ("session", "seq", "rank", "snippet"), rows)
        return 0

    return with_database(work)


def _export(arguments: Namespace, console: Console) -> int:
    async def work(database: DatabaseManager) -> int:
        lines = 0
        with _written(arguments.output) as write:
            async with database.session() as db:
                async for line in SessionRepository(db, arguments.tenant).export_user(arguments.user):
                    write.write(line + "\n")
                    lines += 1
        if arguments.output is not None:
            console.note(f"{lines:,} lines written to {arguments.output}")
        return 0

    return with_database(work)


@contextmanager
def _written(path: Path | None) -> Iterator[TextIO]:
    """Yield what to write to, in UTF-8. A file gets its name when it is complete; a device or a pipe is written to."""
    if path is None:
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(encoding="utf-8")
        yield sys.stdout
        return
    if not path.name:
        raise InputFileError(f"{path}: is a folder; name the file to write")
    plain = not path.exists() or path.is_file()
    target = path.resolve() if plain else path
    unfinished = target.with_name(f"{target.name}.unfinished") if plain else target
    try:
        opened = gzip.open if path.suffix == ".gz" else open
        with cast("TextIO", opened(unfinished, "wt", encoding="utf-8", newline="\n")) as file:
            yield file
        if plain:
            unfinished.replace(target)
    except OSError as exc:
        raise InputFileError(f"{path}: cannot be written ({exc.strerror}); check the path and its permissions") from exc
    finally:
        if plain:
            unfinished.unlink(missing_ok=True)


def _import(arguments: Namespace, console: Console) -> int:
    async def work(database: DatabaseManager) -> int:
        with open_lines(arguments.file) as lines, console.progress(f"Importing {arguments.file.name}") as advance:

            async def given() -> AsyncIterator[str]:
                for line in lines:
                    yield line
                    advance(lines.fraction)

            async with database.session() as db:
                done = await SessionRepository(db, arguments.tenant).import_user(given())
        console.result({"sessions": done.sessions, "messages": done.messages, "skipped": done.skipped})
        return 0

    return with_database(work)


def _erase(arguments: Namespace, console: Console) -> int:
    async def work(database: DatabaseManager) -> int:
        danger = (
            f"everything stored of the user {arguments.user!r} in the tenant {arguments.tenant!r} is removed for good."
        )
        if not arguments.yes and not console.confirms(f"{danger[0].upper()}{danger[1:]}\nRemove it now?"):
            raise ConfigurationError(f"not done: {danger} Run this again with --yes to go on")
        console.result({"erased_sessions": await erase_user(database, arguments.user, tenant_id=arguments.tenant)})
        return 0

    return with_database(work)


def _purge(arguments: Namespace, console: Console) -> int:
    async def work(database: DatabaseManager) -> int:
        purged = 0
        while True:
            async with database.session() as db:
                done = await SessionRepository(db, arguments.tenant).purge_deleted(arguments.older_than)
            purged += done
            if not done:
                break
            console.note(f"{purged:,} sessions purged ...")
        console.result({"purged_sessions": purged})
        return 0

    return with_database(work)


def _recount(arguments: Namespace, console: Console) -> int:
    async def work(database: DatabaseManager) -> int:
        async with database.session() as db:
            repository = SessionRepository(db, arguments.tenant)
            wanted = None if arguments.session is None else (await _find(repository, arguments.session)).id
            drifts = await repository.recount(wanted)
        columns = ("session", "total_messages", "counted_messages", "total_tokens", "counted_tokens")
        rows = [[each.session_id, *each.total_messages, *each.total_tokens] for each in drifts]
        console.table("corrected_sessions", columns, rows)
        return DIFFERENT if drifts else 0

    return with_database(work)
