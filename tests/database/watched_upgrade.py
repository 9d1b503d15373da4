"""What an upgrade does on PostgreSQL, statement by statement: its locks and limits, what it reads and rewrites."""

import re
from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Engine, event

from agent_service.infrastructure.database.engine import DatabaseManager
from agent_service.infrastructure.database.schema.lock_retries import LOCK_TIMEOUT
from agent_service.infrastructure.database.schema.locks import Lock
from agent_service.infrastructure.database.schema.planning import PlannedStep

TABLES = """
SELECT c.oid::int8, n.nspname || '.' || c.relname AS name, c.relfilenode::int8,
       pg_stat_get_xact_tuples_returned(c.oid)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p') AND n.nspname NOT IN ('pg_catalog', 'information_schema')
AND c.relname NOT LIKE '%version%'
"""
LOCKS = """
SELECT relation::int8, mode FROM pg_locks WHERE pid = pg_backend_pid() AND granted AND locktype = 'relation'
"""
LIMIT = "SELECT CAST(extract(epoch FROM CAST(current_setting('lock_timeout') AS interval)) AS float8)"
OUTSIDE_OF_TRANSACTIONS = re.compile(
    r"\s*(SELECT|SET|CREATE (UNIQUE )?INDEX CONCURRENTLY|DROP INDEX CONCURRENTLY)\b", re.IGNORECASE
)
MAKES_INDEX = re.compile(r"\s*CREATE (UNIQUE )?INDEX (?!CONCURRENTLY)", re.IGNORECASE)

OF_AN_INDEX = ("make the index", "make the unique index", "drop the index")
"""What is done outside of transactions, so that its locks are gone when they are looked at."""


@dataclass(frozen=True)
class Table:
    """A table as it was before a revision."""

    name: str
    file: int


@dataclass
class Seen:
    """One statement: which step it belongs to, and what its transaction holds after it."""

    step: str
    statement: str
    locks: dict[str, Lock]
    limit: float
    in_transaction: bool
    scanned: list[str]
    rewritten: list[str]


class Watcher:
    """Watches the connection on which revisions run."""

    def __init__(self) -> None:
        self.seen: list[Seen] = []
        self._step = ""
        self._before: Mapping[int, Table] = {}
        self._read: dict[int, int] = {}
        self._looking = False

    def report(self, line: str) -> None:
        """Note which step begins; for ``DatabaseManager.upgrade(report=...)``."""
        if not line.startswith(" "):
            self._step = line.partition(", step ")[0] + ": " + line.partition(": ")[2]

    def begin(self, connection: Connection) -> None:
        """Note which tables there are."""
        self._before = {oid: Table(name, file) for oid, name, file, _ in connection.exec_driver_sql(TABLES)}

    def look(self, connection: Connection, _cursor: Any, statement: str, *_: Any) -> None:
        """Look at what a statement left behind."""
        if self._looking or "pg_advisory" in statement or statement.startswith("SET LOCAL idle"):
            return
        self._looking = True
        try:
            raw: Any = connection.connection.driver_connection
            in_transaction = raw.is_in_transaction()
            held: dict[str, Lock] = {}
            for oid, mode in connection.exec_driver_sql(LOCKS).all() if in_transaction else ():
                lock = Lock(re.sub(r"(?<!^)(?=[A-Z])", " ", mode.removesuffix("Lock")).upper())
                table = self._before.get(oid)
                if table is not None and (table.name not in held or held[table.name].strength < lock.strength):
                    held[table.name] = lock
            now = {oid: (file, rows) for oid, _, file, rows in connection.exec_driver_sql(TABLES)}
            # The count is the connection's, of what it has not reported yet.
            there = [
                (table, now[oid][0], now[oid][1] > self._read.get(oid, 0))
                for oid, table in self._before.items()
                if oid in now
            ]
            self._read = {oid: rows for oid, (_, rows) in now.items()}
            self.seen.append(
                Seen(
                    self._step,
                    statement,
                    held,
                    connection.exec_driver_sql(LIMIT).scalar_one(),
                    in_transaction,
                    [table.name for table, _, more in there if more],
                    [table.name for table, file, _ in there if file != table.file],
                )
            )
        finally:
            self._looking = False


async def watch_upgrade(
    database: DatabaseManager, revision: str, *, plan: bool = True
) -> tuple[list[Seen], tuple[PlannedStep, ...]]:
    """Upgrade to the next revision, and return what was seen, and what was planned."""
    watcher = Watcher()
    planned = (await database.plan(revision)).steps if plan else ()
    async with database.engine.connect() as connection:
        await connection.run_sync(watcher.begin)
    with _watched(watcher):
        await database.upgrade(revision, report=watcher.report)
    return watcher.seen, planned


@contextmanager
def _watched(watcher: Watcher) -> Any:
    event.listen(Engine, "after_cursor_execute", watcher.look)
    try:
        yield
    finally:
        event.remove(Engine, "after_cursor_execute", watcher.look)


def broken_rules(seen: list[Seen], planned: tuple[PlannedStep, ...]) -> list[str]:
    """Say what an upgrade did that would hold others up, or that ``--dry-run`` did not say."""
    broken = []
    strong = Lock.SHARE_UPDATE_EXCLUSIVE.strength
    really: dict[str, dict[str, Lock]] = {}
    for each in seen:
        shown = " ".join(each.statement.split())[:100]
        held = really.setdefault(each.step, {})
        for table, lock in each.locks.items():
            held[table] = max(lock, held.get(table, lock), key=lambda one: one.strength)
        strongest = max((lock.strength for lock in each.locks.values()), default=0)
        if strongest > strong:
            if not 0 < each.limit <= LOCK_TIMEOUT:
                broken.append(f"{shown}: locks without a limit on waiting ({each.limit} s)")
            if each.scanned:
                broken.append(f"{shown}: reads the rows of {each.scanned} while it keeps others out")
            if each.rewritten:
                broken.append(f"{shown}: writes {each.rewritten} anew while it keeps others out")
        if MAKES_INDEX.match(each.statement) and each.locks:
            broken.append(f"{shown}: makes an index, and not CONCURRENTLY")
        if not each.in_transaction and not OUTSIDE_OF_TRANSACTIONS.match(each.statement):
            broken.append(f"{shown}: is outside of a transaction")
    for step in planned:
        found = {table: lock.value for table, lock in really.get(f"{step.revision}: {step.words}", {}).items()}
        # A row that is read needs a lock that keeps nobody out.
        weak = {Lock.ACCESS_SHARE.value, Lock.ROW_SHARE.value}
        said, was = ({k: v for k, v in each.items() if v not in weak} for each in (step.locks, found))
        if said != was and not step.words.startswith(OF_AN_INDEX):
            broken.append(f"{step.words}: says that it locks {said}, and locks {was}")
    return broken
