"""Who holds the locks that a step waits for."""

from collections.abc import Mapping
from typing import Final

from sqlalchemy import Connection, text

from agent_service.infrastructure.database.naming.names import MARK, TableNames
from agent_service.infrastructure.database.schema.locks import Lock

__all__ = ["blockers"]

_CONFLICTS: Final = {
    Lock.ACCESS_SHARE: (Lock.ACCESS_EXCLUSIVE,),
    Lock.ROW_SHARE: (Lock.EXCLUSIVE, Lock.ACCESS_EXCLUSIVE),
    Lock.ROW_EXCLUSIVE: (Lock.SHARE, Lock.SHARE_ROW_EXCLUSIVE, Lock.EXCLUSIVE, Lock.ACCESS_EXCLUSIVE),
    Lock.SHARE_UPDATE_EXCLUSIVE: tuple(Lock)[3:],
    Lock.SHARE: (Lock.ROW_EXCLUSIVE, Lock.SHARE_UPDATE_EXCLUSIVE, *tuple(Lock)[5:]),
    Lock.SHARE_ROW_EXCLUSIVE: tuple(Lock)[2:],
    Lock.EXCLUSIVE: tuple(Lock)[1:],
    Lock.ACCESS_EXCLUSIVE: tuple(Lock),
}
"""PostgreSQL's table of conflicting lock modes."""

# Never the text of a statement: it may hold values.
_HOLDERS: Final = text("""
SELECT l.pid, max(coalesce(a.application_name, '')), max(coalesce(a.usename::text, '')),
       max(to_char(a.xact_start AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS')), max(coalesce(a.state, ''))
FROM pg_catalog.pg_locks l LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid
WHERE l.locktype = 'relation' AND l.granted AND l.pid <> pg_backend_pid()
AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database())
AND l.relation = CAST(to_regclass(:table) AS oid) AND l.mode = ANY(CAST(:modes AS text[]))
GROUP BY l.pid ORDER BY min(a.xact_start) LIMIT 5
""")


def blockers(connection: Connection, names: TableNames, locks: Mapping[str, Lock]) -> str:
    """Describe who holds conflicting locks now; empty if nobody does."""
    found: dict[int, str] = {}
    for table, lock in locks.items():
        # A row that is waited for is held by somebody who may write.
        excluding = (*_CONFLICTS[lock], Lock.ROW_EXCLUSIVE)
        modes = [f"{each.value.title().replace(' ', '')}Lock" for each in excluding]
        values = {"table": names.full(table.removeprefix(MARK)), "modes": modes}
        for pid, application, role, since, state in connection.execute(_HOLDERS, values):
            found[pid] = (
                f"pid {pid} (application_name {application!r}, role {role!r}, {state or 'state unknown'}, "
                f"in a transaction since {since + ' UTC' if since else 'an unknown time'})"
            )
    return ", ".join(found.values())
