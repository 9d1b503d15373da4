"""What a revision consists of: steps, each short, each saying what it locks.

A revision calls :func:`run` once in ``upgrade()`` and once in ``downgrade()``, and does nothing to the database outside
of its steps::

    def upgrade() -> None:
        run(
            revision,
            Change(
                "add the column note",
                "ALTER TABLE agent_service_sessions ADD COLUMN note text",
                locks={"agent_service_sessions": Lock.ACCESS_EXCLUSIVE},
            ),
            FillRows("note the titles", "agent_service_sessions", key=("id",), assign="note = t.title"),
            *constraint("agent_service_ck_sessions_note", "agent_service_sessions", "CHECK (note IS NOT NULL)"),
            MakeIndex("agent_service_ix_sessions_note", "agent_service_sessions", "(note)"),
        )

On PostgreSQL each step is a transaction of its own (:mod:`stepper`), so other users of the tables wait for one step at
most, and an interrupted revision continues at the first step that was not done. So the schema between two steps must
serve the code of the version before (expand/contract). On SQLite, and in a transaction of the caller's
(``complete_tables``), all steps run in the connection's one transaction, in the same order.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Final, Protocol, TypeAlias

from alembic import op
from sqlalchemy import Connection

from agent_service.infrastructure.database.schema.locks import Lock

__all__ = [
    "Change",
    "DropIndex",
    "FillRows",
    "Lock",
    "MakeIndex",
    "Runner",
    "Step",
    "Work",
    "constraint",
    "handled_by",
    "run",
]


Work: TypeAlias = str | tuple[str, ...] | Callable[[Connection], object]
"""Statements, or a function that runs them; one that is run again after it failed."""


@dataclass(frozen=True)
class Change:
    """Statements of one short transaction, which is retried with a lock timeout of less than a second.

    :param words: what they do, for readers of ``db upgrade --dry-run``.
    :param work: the statements.
    :param locks: the strongest lock on each table that was there before, by its name with ``agent_service_``. What the
        step makes itself needs no entry.
    """

    words: str
    work: Work
    locks: Mapping[str, Lock] = field(default_factory=dict)

    def run(self, connection: Connection) -> None:
        """Do it in the connection's transaction."""
        if callable(self.work):
            self.work(connection)
            return
        for statement in (self.work,) if isinstance(self.work, str) else self.work:
            connection.exec_driver_sql(statement)


@dataclass(frozen=True)
class MakeIndex:
    """An index on a table with rows in it, made while others read and write (CONCURRENTLY).

    What a killed process left of it is dropped and created again; an existing index is left alone.

    :param definition: what follows the table's name: ``(a, b) WHERE a > 0``, ``USING gin (title)``; or a function that
        returns it, or None for no index on this server.
    """

    name: str
    table: str
    definition: str | Callable[[Connection], str | None]
    unique: bool = False

    @property
    def words(self) -> str:
        """What it does."""
        return f"make the {'unique ' if self.unique else ''}index {self.name}"

    @property
    def locks(self) -> Mapping[str, Lock]:
        """What it locks."""
        return {self.table: Lock.SHARE_UPDATE_EXCLUSIVE}

    def statement(self, connection: Connection, option: str = "") -> str | None:
        """Return the statement, if there is to be an index."""
        definition = self.definition(connection) if callable(self.definition) else self.definition
        kind = "UNIQUE INDEX" if self.unique else "INDEX"
        return None if definition is None else f"CREATE {kind} {option}{self.name} ON {self.table} {definition}"

    def run(self, connection: Connection) -> None:
        """Do it in the connection's transaction."""
        if (statement := self.statement(connection)) is not None:
            connection.exec_driver_sql(statement)


@dataclass(frozen=True)
class DropIndex:
    """An index that is dropped while others read and write (CONCURRENTLY); a missing one is no error."""

    name: str
    table: str

    @property
    def words(self) -> str:
        """What it does."""
        return f"drop the index {self.name}"

    @property
    def locks(self) -> Mapping[str, Lock]:
        """What it locks."""
        return {self.table: Lock.SHARE_UPDATE_EXCLUSIVE}

    def run(self, connection: Connection) -> None:
        """Do it in the connection's transaction."""
        connection.exec_driver_sql(f"DROP INDEX IF EXISTS {self.name}")


@dataclass(frozen=True)
class FillRows:
    """Rows that are changed in batches along a key, each batch a transaction; an ended run goes on at its batch.

    Rows that others write behind the current position are not seen again: a trigger or a default has to fill them.

    :param key: columns of an index that is unique, in its order; none of them is changed.
    :param assign: the SET of an UPDATE; ``t`` is the table.
    :param where: the rows that need it; ``t`` is the table.
    :param rows: how many rows a batch looks at.
    """

    words: str
    table: str
    key: tuple[str, ...]
    assign: str
    where: str = "true"
    rows: int = 1000

    @property
    def locks(self) -> Mapping[str, Lock]:
        """What it locks, besides the rows of a batch."""
        return {self.table: Lock.ROW_EXCLUSIVE}

    def run(self, connection: Connection) -> None:
        """Do it in the connection's transaction."""
        connection.exec_driver_sql(f"UPDATE {self.table} AS t SET {self.assign} WHERE {self.where}")  # noqa: S608


Step: TypeAlias = Change | MakeIndex | DropIndex | FillRows


def constraint(
    name: str, table: str, definition: str, *, locks: Mapping[str, Lock] | None = None
) -> tuple[Change, Change]:
    """Return the steps that add a CHECK or a FOREIGN KEY: for new rows first, then validated for existing ones.

    PostgreSQL's; SQLite cannot add one.

    :param locks: beside those on the table: for a foreign key, SHARE ROW EXCLUSIVE on the table it refers to.
    """
    others = dict(locks or {})
    own = Lock.SHARE_ROW_EXCLUSIVE if others else Lock.ACCESS_EXCLUSIVE
    return (
        Change(
            f"add the constraint {name} for new rows",
            f"ALTER TABLE {table} ADD CONSTRAINT {name} {definition} NOT VALID",
            {**others, table: own},
        ),
        Change(
            f"prove the constraint {name} for the rows that are there",
            f"ALTER TABLE {table} VALIDATE CONSTRAINT {name}",
            {**dict.fromkeys(others, Lock.ROW_SHARE), table: Lock.SHARE_UPDATE_EXCLUSIVE},
        ),
    )


class Runner(Protocol):
    """Runs the steps of revisions where that is not the connection's one transaction."""

    def handle(self, revision: str, steps: tuple[Step, ...], *, down: bool) -> None:
        """Do the steps of one revision, or what else is wanted of them."""


_runner: Final[ContextVar[Runner | None]] = ContextVar("runner", default=None)


@contextmanager
def handled_by(runner: Runner) -> Iterator[None]:
    """Have steps handled by this."""
    token = _runner.set(runner)
    try:
        yield
    finally:
        _runner.reset(token)


def run(revision: str, *steps: Step, down: bool = False) -> None:
    """Do the steps of a revision; called once in its ``upgrade()``, and once in its ``downgrade()``.

    :param down: it is the downgrade.
    """
    runner = _runner.get()
    if runner is not None:
        runner.handle(revision, steps, down=down)
        return
    for step in steps:
        step.run(op.get_bind())
