"""Preconditions of changing the keys of the package's tables; each raises an error of ours where it is not met."""

from typing import Final

from sqlalchemy import Connection, Uuid, inspect, text

from agent_service.core.errors import DatabaseError
from agent_service.infrastructure.database.naming.engines import names_of

__all__ = ["keys_are_led_by_tenant", "require_ids_of_one_tenant", "require_own_references"]

_SHARED: Final = text("SELECT id FROM agent_service_sessions GROUP BY id HAVING count(*) > 1 LIMIT 3").columns(
    id=Uuid()
)
_REFERENCES: Final = text("""
SELECT CAST(conname AS text), CAST(CAST(conrelid AS regclass) AS text) FROM pg_catalog.pg_constraint
WHERE contype = 'f' AND confrelid IN (to_regclass(:sessions), to_regclass(:messages))
AND conrelid NOT IN (to_regclass(:sessions), to_regclass(:messages)) AND conparentid = 0
UNION
-- A view that groups by the primary key, and selects other columns too, is made of that key.
SELECT 'GROUP BY', CAST(CAST(r.ev_class AS regclass) AS text) FROM pg_catalog.pg_constraint AS k
JOIN pg_catalog.pg_depend AS d ON d.refclassid = CAST('pg_constraint' AS regclass) AND d.refobjid = k.oid
JOIN pg_catalog.pg_rewrite AS r ON d.classid = CAST('pg_rewrite' AS regclass) AND r.oid = d.objid
WHERE k.contype = 'p' AND k.conrelid IN (to_regclass(:sessions), to_regclass(:messages))
ORDER BY 1, 2
""")
_REFERENCES_SQLITE: Final = text("""
SELECT 'FOREIGN KEY (' || k."from" || ')', m.name FROM sqlite_master AS m, pragma_foreign_key_list(m.name) AS k
WHERE m.type = 'table' AND lower(k."table") IN (lower(:sessions), lower(:messages))
AND m.name NOT IN (:sessions, :messages) ORDER BY 2, 1
""")


def keys_are_led_by_tenant(connection: Connection) -> bool:
    """Whether the tables, which are there, have the primary keys of this version."""
    names = names_of(connection)
    for table in ("sessions", "session_messages"):
        key = inspect(connection).get_pk_constraint(names.local(table), schema=names.schema)
        if key["constrained_columns"][:1] != ["tenant_id"]:
            return False
    return True


def require_own_references(connection: Connection, *, key: str = "(tenant_id, id)") -> None:
    """Refuse to change keys that a table of the application's refers to, or one of its views.

    :param key: what is to be referred to afterwards.
    :raises DatabaseError: there is one; it is named.
    """
    names = names_of(connection)
    on_postgres = names.schema is not None
    place = names.full if on_postgres else names.local
    tables = {"sessions": place("sessions"), "messages": place("session_messages")}
    found = connection.execute(_REFERENCES if on_postgres else _REFERENCES_SQLITE, tables).all()
    if found:
        listed = ", ".join(f"{constraint} of {table}" for constraint, table in found)
        raise DatabaseError(
            f"cannot change the keys of {names}: they are referred to by {listed}; drop what refers to them, run this "
            f"again, and let a new one refer to {key}, which is the key of a session then"
        )


def require_ids_of_one_tenant(connection: Connection) -> None:
    """Refuse keys without a tenant where two tenants use the same id.

    :raises DatabaseError: they do; up to three ids are named.
    """
    shared = [str(each) for each in connection.scalars(_SHARED)]
    if shared:
        raise DatabaseError(
            f"cannot downgrade: two tenants use the same session id ({', '.join(shared)}), and the version before has "
            "one session for an id; remove one session of each, or stay at agent_service_0010"
        )
