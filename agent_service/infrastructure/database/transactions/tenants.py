"""Telling PostgreSQL's row-level security which tenant a transaction works for.

The repositories name the tenant in every statement; the policies are there for the statement that forgot to. They
compare a row's tenant with what the transaction says it works for, in the variable ``agent_service.tenant``, and they
bind every role but the tables' owner and superusers. A transaction that sets nothing sees nothing.

With DB_ROW_SECURITY each transaction sets it before its first statement, at the cost of one round trip.
"""

from typing import Final

from sqlalchemy import Connection, event
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from sqlalchemy.orm import Session as SyncSession
from sqlalchemy.orm import SessionTransaction

from agent_service.core.errors import SessionValueError
from agent_service.infrastructure.database.queries.driver import fetch_rows

__all__ = [
    "TenantSession",
    "say_tenant_again",
    "say_tenant_on_begin",
    "says_tenant",
    "serve_every_tenant",
    "serve_tenant",
    "tenant_engine",
]

_EVERY_TENANT: Final = "*"
"""What the variable holds for the work that concerns all tenants: cleaning up."""
_KEY: Final = "agent_service_tenant"
_SAY: Final = "SELECT set_config('agent_service.tenant', $1, true)"


class TenantSession(SyncSession):
    """A session whose transactions begin by setting their tenant."""


@event.listens_for(TenantSession, "after_begin")
def _say_tenant(session: SyncSession, transaction: SessionTransaction, connection: Connection) -> None:
    if not transaction.nested:
        say_tenant_again(session, connection)


def say_tenant_again(session: SyncSession, connection: Connection) -> None:
    """Set the tenant in a transaction that was begun anew, if the session's transactions set it."""
    if isinstance(session, TenantSession) and _KEY in session.info:
        fetch_rows(connection, _SAY, (session.info[_KEY],))


def serve_tenant(db: AsyncSession, tenant_id: str) -> None:
    """Remember the tenant of a session's transactions, where the database is told.

    :raises SessionValueError: the session serves another tenant, or its transaction has begun without one.
    """
    if not isinstance(db, AsyncSession) or not isinstance(db.sync_session, TenantSession):
        return
    said = _variable(tenant_id)
    if db.info.get(_KEY, said) != said:
        raise SessionValueError(
            f"with DB_ROW_SECURITY a session serves one tenant; open another for tenant_id {tenant_id!r}"
        )
    if _KEY not in db.info and db.in_transaction():
        raise SessionValueError("with DB_ROW_SECURITY make the repository before the session's first statement")
    db.info[_KEY] = said


def serve_every_tenant(db: AsyncSession) -> None:
    """Remember that these transactions concern all tenants."""
    db.info[_KEY] = _EVERY_TENANT


def tenant_engine(engine: AsyncEngine, tenant_id: str) -> AsyncEngine:
    """Return the engine for one tenant: with DB_ROW_SECURITY its transactions set it. The pool is shared."""
    return engine.execution_options(**{_KEY: _variable(tenant_id)})


def say_tenant_on_begin(engine: AsyncEngine) -> None:
    """Have the transactions of :func:`tenant_engine` set their tenant."""
    event.listen(engine.sync_engine, "begin", _say_option)


def says_tenant(engine: AsyncEngine) -> bool:
    """Whether transactions of this engine set their tenant."""
    return event.contains(engine.sync_engine, "begin", _say_option)


def _say_option(connection: Connection) -> None:
    said = connection.get_execution_options().get(_KEY)
    if said is not None:
        fetch_rows(connection, _SAY, (said,))


def _variable(tenant_id: str) -> str:
    # The empty tenant must differ from an unset variable, which PostgreSQL gives as an empty string, and "*" from all.
    return f"={tenant_id}"
