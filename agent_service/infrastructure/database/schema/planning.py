"""The dry run of an upgrade: its steps, their locks, and what others can do meanwhile."""

from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import Connection

from agent_service.infrastructure.database.naming.engines import names_of
from agent_service.infrastructure.database.naming.names import TableNames
from agent_service.infrastructure.database.schema import revisions
from agent_service.infrastructure.database.schema.lock_retries import LOCK_TIMEOUT
from agent_service.infrastructure.database.schema.migration import current_of
from agent_service.infrastructure.database.schema.progress import Progress, read_progress
from agent_service.infrastructure.database.schema.steps import Step, handled_by

__all__ = ["PlannedStep", "SchemaPlan", "plan"]


@dataclass(frozen=True)
class PlannedStep:
    """One step.

    :param locks: the strongest lock that it takes on each table that is there before, by the table's name.
    :param others: what others can do with these tables meanwhile: "read and write", "read" or "wait".
    """

    revision: str
    words: str
    locks: Mapping[str, str]
    others: str


@dataclass(frozen=True)
class SchemaPlan:
    """What an upgrade would do.

    :param titles: what each revision to come is for, by its id.
    :param in_one_transaction: they are one transaction, as on SQLite, during which others read and do not write.
    :param lock_timeout: seconds that a step waits for its locks at a time, and so others behind it.
    """

    current: str | None
    target: str
    titles: Mapping[str, str]
    steps: tuple[PlannedStep, ...]
    in_one_transaction: bool
    lock_timeout: float = LOCK_TIMEOUT


class _Listing:
    def __init__(self) -> None:
        self.steps: tuple[Step, ...] = ()

    def handle(self, revision: str, steps: tuple[Step, ...], *, down: bool) -> None:  # noqa: ARG002
        self.steps = steps


def plan(connection: Connection, revision: str = "head") -> SchemaPlan:
    """Return what an upgrade to a revision would do; nothing is changed.

    :raises DatabaseError: there is no such revision, the database is at one that only a later version knows, or a
        downgrade is not finished.
    """
    embedded = connection.dialect.name != "postgresql"
    if not embedded:
        connection.exec_driver_sql("SET TRANSACTION READ ONLY")
    names = names_of(connection)
    current = current_of(connection, names)
    target = revisions.absolute(revision, current)
    begun = None if embedded else read_progress(connection, names)
    to_come = revisions.between(current, target)
    if begun is not None:
        begun.require(to_come[0] if to_come else "", down=False)
    titles: dict[str, str] = {}
    steps: list[PlannedStep] = []
    with revisions.operations(connection):
        for each in to_come:
            script = revisions.scripts().get_revision(each)
            titles[each] = (script.doc or "").partition("\n")[0]
            steps += _listed(script.module, each, names, begun, embedded=embedded)
    return SchemaPlan(current, target, titles, tuple(steps), embedded)


def _listed(
    module: object, revision: str, names: TableNames, begun: Progress | None, *, embedded: bool
) -> list[PlannedStep]:
    listing = _Listing()
    with handled_by(listing):
        module.upgrade()  # type: ignore[attr-defined]
    done = begun.steps if begun is not None and begun.revision == revision else 0
    return [_planned(step, revision, names, embedded=embedded) for step in listing.steps[done:]]


def _planned(step: Step, revision: str, names: TableNames, *, embedded: bool) -> PlannedStep:
    words = names.shown(step.words)
    if embedded:
        return PlannedStep(revision, words, {}, "read")
    locks = {f"{names.schema}.{names.shown(table)}": lock.value for table, lock in step.locks.items()}
    if all(lock.others_write for lock in step.locks.values()):
        return PlannedStep(revision, words, locks, "read and write")
    return PlannedStep(
        revision, words, locks, "read" if all(lock.others_read for lock in step.locks.values()) else "wait"
    )
