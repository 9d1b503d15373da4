"""The progress of an unfinished revision: stored in the database, by the transactions of its steps.

It is PostgreSQL's comment on the column of the version table. That column exists before the first step; the comment
is removed with the last one, needs no table or privilege of its own, and commits with the step that it describes.
"""

import json
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, text

from agent_service.core.errors import DatabaseError
from agent_service.infrastructure.database.naming.names import TableNames

__all__ = ["Progress", "literal", "read_progress", "write_progress"]

_READ: Final = text(
    "SELECT pg_catalog.col_description(CAST(pg_catalog.to_regclass(:version) AS oid), CAST(1 AS integer))"
)


@dataclass(frozen=True)
class Progress:
    """What is done of a revision.

    :param down: it is its downgrade that is under way.
    :param steps: how many steps are done.
    :param after: the key up to which the next step, in batches, is done.
    :param rows: how many rows these batches looked at.
    """

    revision: str
    down: bool
    steps: int
    after: tuple[str, ...] = ()
    rows: int = 0

    def __str__(self) -> str:
        """Say what is not finished, and how to finish it."""
        begun, remedy = ("downgrade", "downgrade -1") if self.down else ("upgrade", "upgrade")
        return (
            f"the {begun} of revision {self.revision} was begun and is not finished; first run: "
            f"agent-service db {remedy}"
        )

    def require(self, revision: str, *, down: bool) -> None:
        """Refuse to begin another revision before this one is finished.

        :raises DatabaseError: it is another revision, or the other direction.
        """
        if (self.revision, self.down) != (revision, down):
            raise DatabaseError(str(self))


def read_progress(connection: Connection, names: TableNames) -> Progress | None:
    """Return what is done of a revision that was begun and not finished."""
    comment = connection.execute(_READ, {"version": names.full("version")}).scalar()
    try:
        said: Any = json.loads(comment or "null")
        return Progress(said["revision"], said["down"], said["steps"], tuple(said["after"]), said["rows"])
    except (ValueError, TypeError, KeyError):
        return None  # It is not a comment of ours.


def write_progress(connection: Connection, names: TableNames, progress: Progress | None) -> None:
    """Note it, in the connection's transaction; None: nothing is under way."""
    comment = "NULL" if progress is None else literal(json.dumps(progress.__dict__))
    connection.exec_driver_sql(f"COMMENT ON COLUMN {names.full('version')}.version_num IS {comment}")


def literal(value: str) -> str:
    """Return a string as a literal, for a statement that takes no parameters."""
    return "E'" + value.replace("\\", "\\\\").replace("'", "''") + "'"
