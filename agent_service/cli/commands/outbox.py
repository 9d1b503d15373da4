"""``agent-service outbox ...``: invalidations that were committed and wait to be applied, or cannot be read."""

from argparse import Namespace
from typing import Any
from uuid import UUID

from agent_service.cli.console import Console
from agent_service.cli.grammar import add_command, add_group, positive
from agent_service.cli.running import with_database
from agent_service.core.errors import ConfigurationError
from agent_service.infrastructure.database.engine.manager import DatabaseManager
from agent_service.infrastructure.database.outbox import FORMAT, ListedRow, list_rows, retry_rows

__all__ = ["register"]

SHOWN = 50


def register(commands: Any) -> None:
    """Add ``outbox`` and what is below it."""
    verbs = add_group(commands, "outbox", "see what waits in the outbox, and retry what was set aside")
    listing = add_command(verbs, "list", _list, "list the rows of the outbox, the oldest first", "outbox list --failed")
    listing.add_argument("--failed", action="store_true", help="only rows that could not be read and were set aside")
    listing.add_argument(
        "--limit", type=positive, default=SHOWN, metavar="N", help=f"the most rows to show (default {SHOWN})"
    )
    retrying = add_command(
        verbs,
        "retry",
        _retry,
        "have rows that were set aside be tried again, for example by a newer version of the package",
        "outbox retry",
    )
    retrying.add_argument("ids", nargs="*", metavar="ID", help="which rows (default: all that were set aside)")


def _list(arguments: Namespace, console: Console) -> int:
    async def work(database: DatabaseManager) -> int:
        async with database.session() as db:
            rows = await list_rows(db, arguments.limit, failed=arguments.failed)
        columns = ("id", "state", "created_at", "failed_at", "body")
        listed = [[each.id, _state(each), each.created_at, each.failed_at, each.body] for each in rows]
        console.table("rows", columns, listed)
        return 0

    return with_database(work)


def _state(row: ListedRow) -> str:
    if row.failed_at is not None:
        return "failed"
    return "waiting" if row.format == FORMAT else f"of another version (format {row.format})"


def _retry(arguments: Namespace, console: Console) -> int:
    async def work(database: DatabaseManager) -> int:
        try:
            ids = [UUID(each) for each in arguments.ids] or None
        except ValueError as exc:
            raise ConfigurationError(
                f"{' '.join(arguments.ids)!r:.80} are not ids of the outbox; agent-service outbox list shows them"
            ) from exc
        async with database.session() as db:
            retried = await retry_rows(db, ids)
        console.result({"retried_rows": retried})
        return 0

    return with_database(work)
