"""Moving a database's schema from one revision to another, and comparing it with the models."""

import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.util import CommandError
from sqlalchemy import Connection, MetaData

from agent_service.core.errors import DatabaseError
from agent_service.infrastructure.database.naming.catalog import make_schema
from agent_service.infrastructure.database.naming.engines import Naming, names_of, naming_of
from agent_service.infrastructure.database.naming.names import SEARCH, TableNames, quoted
from agent_service.infrastructure.database.schema import revisions
from agent_service.infrastructure.database.schema.adopting import adopt, adoptable, hand_back, require_way_back
from agent_service.infrastructure.database.schema.differing import in_words
from agent_service.infrastructure.database.schema.lock_retries import Report
from agent_service.infrastructure.database.schema.metadata import copy_tables
from agent_service.infrastructure.database.schema.progress import Progress, read_progress
from agent_service.infrastructure.database.schema.stepper import TURN_KEY, Stepper, turn_on
from agent_service.infrastructure.database.schema.steps import handled_by

__all__ = [
    "SchemaState",
    "check",
    "compare_options",
    "current_of",
    "differences",
    "downgrade",
    "known_revisions",
    "lag",
    "moving",
    "upgrade",
]

T = TypeVar("T")

_UPGRADE = "run: agent-service db upgrade"
_SERVES = "agent_service_0009"
"""The first revision with which this version's statements work; services are replaced before the ones after it."""

# Some indexes depend on what the engine offers (pg_trgm, FTS5, text_pattern_ops); the migrations own them,
# and the models do not know them.
_ENGINE_OWN = (
    "ix_sessions_title_trigram",
    "ix_session_messages_content_trigram",
    "ix_context_store_prefix",
    "ix_store_items_prefix",
)


def _say_nothing(_line: str) -> None:
    """Ignore a report."""


@dataclass(frozen=True)
class SchemaState:
    """The revision of a database, the one it should have, and the differences in words (empty: none)."""

    current: str | None
    head: str
    differences: tuple[str, ...]
    remedy: str = ""

    @property
    def ok(self) -> bool:
        """Whether the database is at the newest revision and holds exactly what the models say."""
        return self.current == self.head and not self.differences and not self.remedy


def upgrade(connection: Connection, revision: str = "head", report: Report = _say_nothing) -> None:
    """Move the schema forward. Processes that race take turns.

    On PostgreSQL in short steps, each a transaction of its own, if the connection is in none; else in its transaction.

    :param report: is told what is done.
    """
    _run(lambda: command.upgrade(revisions.config(connection, report), revisions.identifier(revision)))


def downgrade(connection: Connection, revision: str, report: Report = _say_nothing) -> None:
    """Move the schema back to ``revision`` ("base": to nothing), as :func:`upgrade` does. Data goes with it."""
    _run(lambda: command.downgrade(revisions.config(connection, report, down=True), revisions.identifier(revision)))


@contextmanager
def moving(
    connection: Connection, report: Report = _say_nothing, destination: str | None = None, *, down: bool = False
) -> Iterator[dict[str, Any]]:
    """Take over tables of earlier versions before the revisions run, or return them after a downgrade.

    Yield Alembic's options.

    :param destination: the revision that is wanted, where it is known.
    :param down: it is a downgrade; perhaps one that was interrupted before its last part, returning the tables.
    """
    naming, in_steps = naming_of(connection.engine), connection.dialect.name == "postgresql"
    with ExitStack() as stack:
        if in_steps and not connection.in_transaction():
            stepper = Stepper(connection, stack.enter_context(turn_on(connection.engine)), report)
            stack.enter_context(handled_by(stepper))
            do = stepper.do
        else:
            _lock(connection)
            stepper, do = None, _do_at_once
        naming.forget()
        try:
            names = do("take over the tables of an earlier version", partial(_prepare, connection, naming))
            naming.settle(names)
            before = revisions.current(connection, names)
            if destination in revisions.known() and before in revisions.known():
                require_way_back(connection, names, before, destination)
            options = revisions.version_options(names)
            if stepper is not None:
                stepper.begin(names)
                options["on_version_apply"] = stepper.finish
            yield options
            if stepper is not None:
                stepper.require_finished()
            do("give the tables back to an earlier version", partial(_hand_back, connection, names, before, down=down))
        finally:
            naming.forget()
        naming.of(connection)


def _do_at_once(words: str, work: Callable[[], T]) -> T:  # noqa: ARG001
    return work()


def _prepare(connection: Connection, naming: Naming) -> TableNames:
    names = naming.of(connection)
    if names.schema is not None:
        make_schema(connection, names.schema)
    adopt(connection, names)
    return names


def _hand_back(connection: Connection, names: TableNames, before: str | None, *, down: bool) -> None:
    after = revisions.current(connection, names)
    if down or (before is not None and (after is None or revisions.number(after) < revisions.number(before))):
        hand_back(connection, names)


def known_revisions() -> tuple[str, ...]:
    """Return every revision that the package knows, the first one first; read from its files once."""
    return revisions.known()


def lag(connection: Connection) -> str | None:
    """Say what the schema lacks for our statements, and the remedy; None if nothing. It may be of a later version."""
    names = names_of(connection)
    current = current_of(connection, names)
    if current is None:
        return f"the database is not migrated; {_UPGRADE}"
    if current in revisions.known() and revisions.number(current) < revisions.number(_SERVES):
        return f"the schema is at revision {current}, and this version needs {_SERVES} or a later one; {_UPGRADE}"
    begun = _begun_downgrade(connection, names)
    return None if begun is None else str(begun)


def current_of(connection: Connection, names: TableNames) -> str | None:
    """Return the revision that the tables are at, those of an earlier version included; None: there are none."""
    if revisions.has_version_table(connection, names):
        return revisions.current(connection, names)
    earlier = adoptable(connection, names)
    return None if earlier is None else revisions.identifier(earlier)


def check(connection: Connection) -> SchemaState:
    """Compare the database with the revisions and the models."""
    names = names_of(connection)
    current, begun = current_of(connection, names), _begun_downgrade(connection, names)
    found = differences(connection)
    remedy = _remedy(current, found) if begun is None else str(begun)
    return SchemaState(current, revisions.head(), tuple(in_words(found)), remedy)


def _begun_downgrade(connection: Connection, names: TableNames) -> Progress | None:
    """Return the downgrade that was begun; during an upgrade the schema serves the revision that it is at."""
    begun = None if connection.dialect.name != "postgresql" else read_progress(connection, names)
    return begun if begun is not None and begun.down else None


def _remedy(current: str | None, found: list[Any]) -> str:
    if current is not None and current not in revisions.known():
        return f"a later version of the package made revision {current}: install that version, no upgrade helps"
    if current != revisions.head():
        return _UPGRADE
    kinds = {change[0] for each in found for change in (each if isinstance(each, list) else [each])}
    surplus = {kind for kind in kinds if kind.startswith("remove_")}
    remedies = []
    if surplus:
        remedies.append("drop what the package does not know, or keep it in a table of your own")
    if kinds - surplus:
        remedies.append("put back by hand what is missing or was changed, as the migrations made it")
    return "; ".join(remedies) and f"the revision is the newest, so no upgrade helps: {'; '.join(remedies)}"


def differences(connection: Connection) -> list[Any]:
    """Compare the tables with the models, as :func:`compare_options` does it."""
    context = MigrationContext.configure(connection, opts=compare_options(connection))
    return list(compare_metadata(context, context.opts["target_metadata"]))


def compare_options(connection: Connection) -> dict[str, Any]:
    """Return the options with which Alembic compares a database to the models.

    For the rest of its transaction PostgreSQL looks names up in the tables' schema only: so nothing else is compared.
    """
    names = names_of(connection)
    if names.schema is not None:
        connection.exec_driver_sql(f"SET LOCAL search_path TO {quoted(names.schema)}")
    metadata = MetaData()
    copy_tables(metadata, names, schema=None)
    return revisions.version_options(names) | {
        "target_metadata": metadata,
        "compare_type": True,
        "compare_server_default": True,
        "include_name": lambda name, kind, _parents: _is_compared(name, kind, names, metadata),
    }


def _is_compared(name: str | None, kind: str, names: TableNames, metadata: MetaData) -> bool:
    if kind == "table":
        return name in metadata.tables  # Others are the caller's, or SQLite's search.
    return name not in {names.local(each) for each in (*_ENGINE_OWN, *SEARCH)}


def _lock(connection: Connection) -> None:
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({TURN_KEY})")
    else:
        # Counts as a write, so it takes SQLite's write lock before the current revision is read.
        connection.exec_driver_sql("SAVEPOINT migration")


def _run(migrate: Any) -> None:
    logging.getLogger("alembic").setLevel(logging.WARNING)
    try:
        migrate()
    except CommandError as exc:
        raise DatabaseError(f"cannot migrate: {exc}; is the database newer than this package?") from exc
