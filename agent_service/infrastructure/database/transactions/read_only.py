"""Read-only sessions. Reads that must be current go to the primary, and reload objects that were read before."""

from typing import Any, Final

from sqlalchemy import Connection, Engine, event
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from sqlalchemy.orm import ORMExecuteState
from sqlalchemy.orm import Session as SyncSession

from agent_service.core.current_reads import must_be_current
from agent_service.infrastructure.database.transactions.tenants import TenantSession

__all__ = ["ReadingSession", "TenantReadingSession", "ask_when_it_matters"]

_PRIMARY: Final = "agent_service_primary"


class ReadingSession(SyncSession):
    """A session that reads. It may be open when a load of a cache begins, and be handed to it.

    It keeps the objects it has read, and would return their old values again.
    """

    def get_bind(self, *args: Any, **options: Any) -> Engine | Connection:
        """Return the engine of the next statement."""
        primary: Engine | None = self.info.get(_PRIMARY)
        return super().get_bind(*args, **options) if primary is None or not must_be_current() else primary

    def get(self, *args: Any, **options: Any) -> Any:
        """Return an object by its primary key."""
        if must_be_current():
            options["populate_existing"] = True
        return super().get(*args, **options)


@event.listens_for(ReadingSession, "do_orm_execute")
def _read_again(state: ORMExecuteState) -> None:
    if state.is_select and must_be_current():
        state.update_execution_options(populate_existing=True)


class TenantReadingSession(ReadingSession, TenantSession):
    """A read-only session whose transactions begin by setting their tenant."""


def ask_when_it_matters(db: AsyncSession, primary: AsyncEngine) -> None:
    """Have a session read from ``primary`` where reads must be current."""
    db.info[_PRIMARY] = primary.sync_engine
