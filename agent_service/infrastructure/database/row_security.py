"""A second wall between tenants, kept by PostgreSQL itself: row-level security.

The repositories name the tenant in every statement; the policies are there for the statement that forgot to. They
compare a row's tenant with what the transaction says it works for, in the variable ``agent_service.tenant``, and they
bind every role but the tables' owner and superusers. A transaction that says nothing sees nothing.

With DB_ROW_SECURITY each transaction says it before its first statement, at the cost of one round trip.
"""

from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, event
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from sqlalchemy.orm import Session as SyncSession
from sqlalchemy.orm import SessionTransaction

from agent_service.core.errors import DatabaseError, SessionValueError
from agent_service.infrastructure.database.names import MARK
from agent_service.infrastructure.database.naming import names_of
from agent_service.infrastructure.database.postgres import NAME, NAME_SAYS_TENANT
from agent_service.infrastructure.database.queries.driver import fetch_rows
from agent_service.infrastructure.database.schema.brief_waits import take_locks, try_until_free
from agent_service.infrastructure.database.schema.locks import Lock

__all__ = [
    "Others",
    "RowSecurity",
    "TenantSession",
    "bound_by_policies",
    "hides_rows",
    "say_tenant_again",
    "say_tenant_on_begin",
    "says_tenant",
    "serve_every_tenant",
    "serve_tenant",
    "switch",
    "tenant_engine",
]

_EVERY_TENANT: Final = "*"
"""What the variable holds for the work that concerns all tenants: cleaning up."""
_KEY: Final = "agent_service_tenant"
_TABLES: Final = ("sessions", "session_messages")
_BOUND: Final = """
SELECT a.usename::text, coalesce(a.application_name, ''), count(*)
FROM pg_stat_activity a JOIN pg_roles r ON r.oid = a.usesysid
JOIN pg_class t ON t.oid = $1::text::regclass
WHERE a.datname = current_database() AND a.pid <> pg_backend_pid()
-- Hidden from who is neither a superuser nor a member of the other role, as the tables' owner mostly is neither.
AND coalesce(a.backend_type, 'client backend') = 'client backend'
AND NOT r.rolsuper AND NOT r.rolbypassrls AND NOT pg_has_role(r.oid, t.relowner, 'USAGE')
AND has_table_privilege(r.oid, t.oid, 'SELECT')
GROUP BY 1, 2 ORDER BY 1, 2
"""
_SAY: Final = "SELECT set_config('agent_service.tenant', $1, true)"


@dataclass(frozen=True, slots=True)
class RowSecurity:
    """Whether the policies are in force, and whether they bind the role that asked (not a superuser or the owner)."""

    enabled: bool
    role: str
    role_is_bound: bool


@dataclass(frozen=True, slots=True)
class Others:
    """Connections to the database that are not ours, of one role and application, which the policies bind.

    :param says_tenant: their transactions say which tenant they work for; None: it cannot be told.
    """

    role: str
    application: str
    connections: int
    says_tenant: bool | None


def switch(connection: Connection, *, on: bool) -> RowSecurity:
    """Put the policies in force, or out of force; they stay installed either way. Only the tables' owner may.

    :raises DatabaseError: the database is SQLite, or the policies are not there yet; or others held the tables.
    """
    names = names_of(connection)
    tables = _require_policies(connection)
    locks = {f"{MARK}{table}": Lock.ACCESS_EXCLUSIVE for table in _TABLES}
    connection.rollback()

    def put() -> RowSecurity:
        take_locks(connection, locks)
        for table in tables:
            connection.exec_driver_sql(f"ALTER TABLE {table} {'ENABLE' if on else 'DISABLE'} ROW LEVEL SECURITY")
        active = "SELECT current_user, row_security_active($1::text::regclass)"
        role, bound = fetch_rows(connection, active, (tables[0],))[0]
        return RowSecurity(on, role, bound)

    words, remedy = "switch row-level security", "run the same command again"
    switched = try_until_free(connection, words, put, locks, names=names, report=lambda _: None, remedy=remedy)
    connection.commit()
    return switched


def bound_by_policies(connection: Connection) -> tuple[Others, ...]:
    """Return who is connected now as a role that policies in force would bind, and may read the tables.

    :raises DatabaseError: the database is SQLite, or the policies are not there yet.
    """
    rows = fetch_rows(connection, _BOUND, (_require_policies(connection)[0],))
    known = {NAME_SAYS_TENANT: True, NAME: False}
    return tuple(Others(role, name, count, known.get(name)) for role, name, count in rows)


def hides_rows(connection: Connection) -> bool:
    """Whether policies are in force for the role that asks."""
    active = "SELECT row_security_active(to_regclass($1::text))"
    return bool(fetch_rows(connection, active, (names_of(connection).full(_TABLES[0]),))[0][0])


def _require_policies(connection: Connection) -> list[str]:
    """Return the tables that have policies."""
    if connection.dialect.name != "postgresql":
        raise DatabaseError("row-level security is PostgreSQL's; SQLite has none: give each tenant a file")
    tables = [names_of(connection).full(table) for table in _TABLES]
    policies = (
        "SELECT count(*) FROM pg_policy WHERE polname = 'tenant' "
        "AND polrelid IN (SELECT to_regclass(each) FROM unnest($1::text[]) each)"
    )
    if fetch_rows(connection, policies, (tables,))[0][0] < len(tables):
        raise DatabaseError("the policies of row-level security are not installed; run: agent-service db upgrade")
    return tables


class TenantSession(SyncSession):
    """A session whose transactions begin by saying which tenant they work for."""


@event.listens_for(TenantSession, "after_begin")
def _say_tenant(session: SyncSession, transaction: SessionTransaction, connection: Connection) -> None:
    if not transaction.nested:
        say_tenant_again(session, connection)


def say_tenant_again(session: SyncSession, connection: Connection) -> None:
    """Say it in a transaction that was begun anew on the connection, where the session's transactions say it."""
    if isinstance(session, TenantSession) and _KEY in session.info:
        fetch_rows(connection, _SAY, (session.info[_KEY],))


def serve_tenant(db: AsyncSession, tenant_id: str) -> None:
    """Note whose transactions these are, where the database is told.

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
    """Note that these transactions concern all tenants."""
    db.info[_KEY] = _EVERY_TENANT


def tenant_engine(engine: AsyncEngine, tenant_id: str) -> AsyncEngine:
    """Return the engine as one tenant uses it: with DB_ROW_SECURITY its transactions say so. The pool is shared."""
    return engine.execution_options(**{_KEY: _variable(tenant_id)})


def say_tenant_on_begin(engine: AsyncEngine) -> None:
    """Have the transactions of :func:`tenant_engine` say whose they are."""
    event.listen(engine.sync_engine, "begin", _say_option)


def says_tenant(engine: AsyncEngine) -> bool:
    """Whether transactions of this engine say whose they are."""
    return event.contains(engine.sync_engine, "begin", _say_option)


def _say_option(connection: Connection) -> None:
    said = connection.get_execution_options().get(_KEY)
    if said is not None:
        fetch_rows(connection, _SAY, (said,))


def _variable(tenant_id: str) -> str:
    # The empty tenant must differ from an unset variable, which PostgreSQL gives as an empty string, and "*" from all.
    return f"={tenant_id}"
