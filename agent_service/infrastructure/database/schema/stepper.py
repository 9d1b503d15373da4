"""Running the steps of revisions on PostgreSQL, so that concurrent statements wait for less than a second.

Each step is a transaction that retries with a short lock timeout (:mod:`lock_retries`) and notes how far the revision
is (:mod:`progress`), the last one together with the version; so a process can be killed anywhere, and the next run
continues from there. An index is created outside of a transaction: one that was left half made is invalid, and is
created again.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any, Final, TypeVar

from sqlalchemy import Connection, Engine, text

from agent_service.core.errors import DatabaseError
from agent_service.infrastructure.database.naming.names import MARK, TableNames
from agent_service.infrastructure.database.postgres.connections import POOLED
from agent_service.infrastructure.database.schema.lock_retries import LOCK_TIMEOUT, Report, retry_for_locks, take_locks
from agent_service.infrastructure.database.schema.locks import Lock
from agent_service.infrastructure.database.schema.progress import Progress, literal, read_progress, write_progress
from agent_service.infrastructure.database.schema.steps import Change, DropIndex, FillRows, MakeIndex, Step

__all__ = ["TURN_KEY", "Stepper", "turn_on"]

T = TypeVar("T")

ROW_TIMEOUT: Final = 0.1
"""Seconds that a batch waits for the lock of a row. It may wait for several, while others wait for rows that it has."""
INDEX_PATIENCE: Final = 600.0
"""Seconds that making an index waits for transactions that were there before it, while nobody waits for it."""
_NONE: Final[Mapping[str, Lock]] = {}
_AGAIN: Final = "run agent-service db upgrade again: it goes on from there"
TURN_KEY: Final = 0x61675F6D696772
"""An arbitrary key that every process agrees on. One for all names: which tables are whose is looked up under it."""
# The last of these must be SET: it leaves the transaction without a snapshot, so making an index does not wait for it.
_TURN: Final = (f"SELECT pg_advisory_xact_lock({TURN_KEY})", "SET LOCAL idle_in_transaction_session_timeout = 0")
_INDEX_LIMITS: Final = (f"SET lock_timeout = '{round(INDEX_PATIENCE)}s'", "SET statement_timeout = 0")
_VALIDITY: Final = text("SELECT indisvalid FROM pg_catalog.pg_index WHERE indexrelid = CAST(to_regclass(:name) AS oid)")
_TYPES: Final = text("""
SELECT CAST(attname AS text), format_type(atttypid, atttypmod) FROM pg_catalog.pg_attribute
WHERE attrelid = CAST(to_regclass(:table) AS oid) AND attname = ANY(CAST(:key AS text[]))
""")
_ESTIMATE: Final = text(
    "SELECT greatest(CAST(reltuples AS bigint), 0) FROM pg_catalog.pg_class "
    "WHERE oid = CAST(to_regclass(:table) AS oid)"
)


@contextmanager
def turn_on(engine: Engine) -> Iterator[Connection]:
    """Hold the advisory lock for changing the schema, on a connection of its own; concurrent processes wait for it.

    It is an advisory lock of a transaction: behind pgbouncer one of the session would stay on a shared connection.
    """
    with engine.connect() as connection, connection.begin() as transaction:
        for statement in _TURN:
            connection.exec_driver_sql(statement)
        yield connection
        transaction.rollback()


class Stepper:
    """Does the steps of revisions on a connection of its own.

    :param turn: the connection of :func:`turn_on`.
    :param report: is told of each step.
    """

    def __init__(self, connection: Connection, turn: Connection, report: Report) -> None:
        self._connection = connection
        self._turn = turn
        self._report = report
        self._known: Progress | None = None
        self._names = TableNames(None, "")

    def begin(self, names: TableNames) -> None:
        """Find out where a run before this one left off."""
        self._names = names
        self._known = read_progress(self._connection, names)

    def handle(self, revision: str, steps: tuple[Step, ...], *, down: bool) -> None:
        """Do those steps of a revision that are not done yet. The last one is committed with its version."""
        known = self._known or Progress(revision, down, 0)
        known.require(revision, down=down)
        for number, step in enumerate(steps[known.steps :], known.steps + 1):
            self._connection.commit()
            self._report(f"{revision}, step {number} of {len(steps)}: {self._names.shown(step.words)}")
            done = Progress(revision, down, number)
            if isinstance(step, Change):
                self._noted(step, done, partial(step.run, self._connection), step.locks)
            elif isinstance(step, FillRows):
                self._fill(step, done)
            else:
                self._index(step, done)

    def finish(self, *, step: Any, **_: Any) -> None:
        """Commit a revision's last step with its version; Alembic's ``on_version_apply``."""
        if self._known is not None:
            self._known.require(step.up_revision_id, down=not step.is_upgrade)
            write_progress(self._connection, self._names, None)
        self._connection.commit()
        self._known = None

    def require_finished(self) -> None:
        """Refuse to succeed while a revision that was begun earlier is unfinished and not asked for.

        :raises DatabaseError: there is one.
        """
        if self._known is not None:
            raise DatabaseError(str(self._known))

    def do(self, words: str, work: Callable[[], T]) -> T:
        """Do what belongs to no revision, in a transaction that retries with a short lock timeout."""
        done = self._attempt(words, partial(self._in_transaction, work, {}), {})
        self._connection.commit()
        return done

    def _noted(
        self, step: Step, done: Progress, work: Callable[[], object] = lambda: None, locks: Mapping[str, Lock] = _NONE
    ) -> None:
        """Do the last of a step and note that it is done, in a transaction that is left open."""

        def do_and_note() -> None:
            self._require_untouched()
            work()
            write_progress(self._connection, self._names, done)

        self._attempt(step.words, partial(self._in_transaction, do_and_note, locks), step.locks)
        self._known = done

    def _attempt(self, words: str, once: Callable[[], T], locks: Mapping[str, Lock]) -> T:
        def in_turn() -> T:
            self._turn.exec_driver_sql(_TURN[-1])  # Raises if the advisory lock was lost with its connection.
            return once()

        return retry_for_locks(
            self._connection, words, in_turn, locks, names=self._names, report=self._report, remedy=_AGAIN
        )

    def _in_transaction(self, work: Callable[[], T], locks: Mapping[str, Lock], seconds: float = LOCK_TIMEOUT) -> T:
        take_locks(self._connection, locks, seconds=seconds)
        return work()

    def _require_untouched(self) -> None:
        version = self._names.full("version")
        self._connection.exec_driver_sql(f"LOCK TABLE {version} IN SHARE UPDATE EXCLUSIVE MODE")
        if read_progress(self._connection, self._names) != self._known:
            raise DatabaseError("another process changes the schema at the same time; run this again when it is done")

    def _index(self, step: MakeIndex | DropIndex, done: Progress) -> None:
        # What a killed process had begun may still run, and in a deadlock with it either can be the one that fails.
        self._attempt(step.words, partial(self._outside_of_transactions, step), step.locks)
        self._noted(step, done)

    def _outside_of_transactions(self, step: MakeIndex | DropIndex) -> None:
        self._connection.execution_options(isolation_level="AUTOCOMMIT")
        try:
            if not self._connection.get_execution_options().get(POOLED):
                for limit in _INDEX_LIMITS:
                    self._connection.exec_driver_sql(limit)
            for statement in self._index_statements(step):
                self._connection.exec_driver_sql(statement)
        finally:
            self._connection.rollback()
            self._connection.execution_options(isolation_level="READ COMMITTED")

    def _index_statements(self, step: MakeIndex | DropIndex) -> Iterator[str]:
        drop = f"DROP INDEX CONCURRENTLY IF EXISTS {step.name}"
        if isinstance(step, DropIndex):
            yield drop
            return
        statement = step.statement(self._connection, "CONCURRENTLY ")
        name = self._names.full(step.name.removeprefix(MARK))
        valid = self._connection.execute(_VALIDITY, {"name": name}).scalar()
        if statement is None or valid:
            return
        if valid is not None:
            yield drop
        yield statement

    def _fill(self, step: FillRows, done: Progress) -> None:
        table = self._names.full(step.table.removeprefix(MARK))
        rows = self._connection.execute(_TYPES, {"table": table, "key": list(step.key)})
        types = {str(name): str(kind) for name, kind in rows}
        estimate = self._connection.execute(_ESTIMATE, {"table": table}).scalar() or 1
        self._connection.commit()
        fill = partial(self._fill_batch, step, types, done)
        batch = partial(self._in_transaction, fill, step.locks, ROW_TIMEOUT)
        while reached := self._attempt(step.words, batch, step.locks):
            self._connection.commit()
            self._known = reached
            self._report(f"  {reached.rows:,} rows, {min(reached.rows / estimate, 0.99):.0%}")
        self._connection.commit()
        self._noted(step, done)

    def _fill_batch(self, step: FillRows, types: Mapping[str, str], done: Progress) -> Progress | None:
        """Change the next rows and note how far that is; None: there are none."""
        self._require_untouched()
        after, rows = (self._known.after, self._known.rows) if self._known else ((), 0)
        seen = self._connection.exec_driver_sql(_batch(step, types, after)).first()
        if seen is None:
            return None
        reached = replace(done, steps=done.steps - 1, after=tuple(seen[1:]), rows=rows + seen[0])
        write_progress(self._connection, self._names, reached)
        return reached


def _batch(step: FillRows, types: Mapping[str, str], after: tuple[str, ...]) -> str:
    """Return the statement that changes the rows after a key, and returns how many it saw and the last one's key."""
    key = ", ".join(step.key)
    where = ""
    if after:
        values = ", ".join(
            f"CAST({literal(each)} AS {types[name]})" for name, each in zip(step.key, after, strict=True)
        )
        where = f"WHERE ({key}) > ({values})"
    mine, same = ", ".join(f"t.{each}" for each in step.key), ", ".join(f"page.{each}" for each in step.key)
    last = ", ".join(f"CAST(page.{each} AS text)" for each in step.key)
    backwards = ", ".join(f"page.{each} DESC" for each in step.key)
    return f"""
        WITH page AS MATERIALIZED (SELECT {key} FROM {step.table} {where} ORDER BY {key} LIMIT {step.rows}),
        changed AS (UPDATE {step.table} AS t SET {step.assign} FROM page WHERE ({mine}) = ({same}) AND ({step.where}))
        SELECT (SELECT count(*) FROM page), {last} FROM page ORDER BY {backwards} LIMIT 1
    """  # noqa: S608 - names and key values of the database itself, quoted
