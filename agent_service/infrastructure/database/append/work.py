"""Work for a committer that is not the appending of messages."""

from typing import Protocol

from sqlalchemy import Connection

from agent_service.infrastructure.database.append.postgres import Statement
from agent_service.infrastructure.database.append.sqlite import Run

__all__ = ["Work"]


class Work(Protocol):
    """What one transaction does beside appending messages; it may be done again after a failure."""

    def statement(self) -> Statement:
        """Return it as one statement of PostgreSQL, with parameters."""

    def locked(self, run: Run) -> None:
        """Do it on SQLite, in a transaction that holds the write lock."""

    def within(self, connection: Connection) -> None:
        """Do it in a transaction of SQLAlchemy."""
