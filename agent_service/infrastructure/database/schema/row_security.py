"""PostgreSQL's row-level security: switching the policies between tenants on and off, and who they bind.

The policies are installed by a revision. They compare a row's tenant with the variable ``agent_service.tenant``, which
each transaction sets (see ``transactions/tenants.py``), and bind every role but the tables' owner and superusers.
"""

from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection

from agent_service.core.errors import DatabaseError
from agent_service.infrastructure.database.naming.engines import names_of
from agent_service.infrastructure.database.naming.names import CHECKPOINTS, MARK
from agent_service.infrastructure.database.postgres.connections import NAME, NAME_SAYS_TENANT
from agent_service.infrastructure.database.queries.driver import fetch_rows
from agent_service.infrastructure.database.schema.lock_retries import retry_for_locks, take_locks
from agent_service.infrastructure.database.schema.locks import Lock

__all__ = ["Others", "RowSecurity", "bound_by_policies", "hides_rows", "switch"]

_TABLES: Final = ("sessions", "session_messages", *CHECKPOINTS)
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
    """Enable or disable the policies; they stay installed either way. Only the tables' owner may.

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
    switched = retry_for_locks(connection, words, put, locks, names=names, report=lambda _: None, remedy=remedy)
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
