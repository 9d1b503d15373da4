"""``agent-service db ...``, ``cleanup`` and ``stats``: the database of DATABASE_URL."""

import asyncio
from argparse import Namespace
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from agent_service.cli.console import Console
from agent_service.core.errors import ConfigurationError
from agent_service.core.settings import get_settings
from agent_service.infrastructure.database.connection import close_database, get_database, get_session
from agent_service.infrastructure.database.engine.manager import DatabaseManager
from agent_service.infrastructure.database.maintenance.cleanup import cleanup_once
from agent_service.infrastructure.database.repositories.session import SessionRepository

if TYPE_CHECKING:
    from agent_service.infrastructure.database.schema.planning import SchemaPlan
    from agent_service.infrastructure.database.schema.row_security import Others

__all__ = ["check", "cleanup", "disable_row_security", "downgrade", "enable_row_security", "stats", "upgrade"]

DIFFERENT = 1


def upgrade(arguments: Namespace, console: Console) -> int:
    """Bring the tables to ``arguments.revision``, or say what that would do."""

    async def work(database: DatabaseManager) -> int:
        if arguments.dry_run:
            return _show_plan(database, await database.plan(arguments.revision), console)
        await database.upgrade(arguments.revision, report=console.note)
        state = await database.check()
        console.result({"database": str(database), "revision": state.current})
        return 0

    return _run(work)


_MEANWHILE = {
    "read and write": "others read and write meanwhile",
    "read": "others read meanwhile, and wait to write",
    "wait": "others wait",
}


def _show_plan(database: DatabaseManager, plan: "SchemaPlan", console: Console) -> int:
    console.result(
        {"database": str(database), "revision": plan.current, "target_revision": plan.target}
        | ({"in_one_transaction": plan.in_one_transaction} if console.as_json else {})
        | ({"steps": [asdict(step) for step in plan.steps]} if console.as_json else {})
    )
    for revision, title in plan.titles.items():
        console.say(f"{revision}: {title}")
        for step in plan.steps:
            if step.revision == revision:
                locks = ", ".join(f"{lock} on {table}" for table, lock in step.locks.items()) or "locks no table"
                console.say(f"  {step.words}" + ("" if plan.in_one_transaction else f": {locks}"))
                if not plan.in_one_transaction and step.locks:
                    console.say(f"    {_MEANWHILE[step.others]}")
    if plan.steps and plan.in_one_transaction:
        console.say(f"all in one transaction: {_MEANWHILE['read']}")
    elif plan.steps:
        console.say(
            f"a step waits at most {plan.lock_timeout} s at a time for its locks, so it delays nobody for longer"
        )
    return 0


def downgrade(arguments: Namespace, console: Console) -> int:
    """Take the tables back to ``arguments.revision``."""

    async def work(database: DatabaseManager) -> int:
        await database.downgrade(arguments.revision)
        state = await database.check()
        console.result({"database": str(database), "revision": state.current})
        return 0

    return _run(work)


def check(_arguments: Namespace, console: Console) -> int:
    """Compare the tables with the models; exit code 1 when they differ."""

    async def work(database: DatabaseManager) -> int:
        state = await database.check()
        differences = list(state.differences)
        console.result(
            {"database": str(database), "revision": state.current, "newest_revision": state.head, "ok": state.ok}
            | ({"differences": differences} if console.as_json else {})
        )
        for difference in differences:
            console.say(f"  differs: {difference}")
        if not state.ok:
            console.say(state.remedy)
        return 0 if state.ok else DIFFERENT

    return _run(work)


def enable_row_security(arguments: Namespace, console: Console) -> int:
    """Put the policies between tenants in force; ask first where that would hide every row from a process."""

    async def work(database: DatabaseManager) -> int:
        others = await database.bound_by_policies()
        danger = _danger(others, here=get_settings().db_row_security)
        if danger and not arguments.yes and not console.confirms(f"{danger}\nPut the policies in force now?"):
            raise ConfigurationError(f"not put in force: {danger} Then run this again, or with --yes to go on anyway")
        return await _switch_row_security(database, console, on=True)

    return _run(work)


def disable_row_security(_arguments: Namespace, console: Console) -> int:
    """Take the policies between tenants out of force."""
    return _run(lambda database: _switch_row_security(database, console, on=False))


def _danger(others: Sequence["Others"], *, here: bool) -> str:
    """Return a warning: who would see no row, and what to do first. Empty if no such process is known.

    :param here: whether this process names its tenants.
    """
    blind = [each for each in others if not each.says_tenant]
    if here and not blind:
        return ""
    found = ", ".join(
        f"{each.connections} of role {each.role!r} with application_name {each.application!r} "
        f"({'may' if each.says_tenant is None else 'does'} not say its tenants)"
        for each in blind
    )
    return (
        "row-level security hides every row from processes that do not say their tenants. First set "
        "DB_ROW_SECURITY=true for every process that uses this database, and restart it."
        + ("" if here else " It is not set here.")
        + (f" Connected now: {found}." if found else " None such is connected now.")
    )


async def _switch_row_security(database: DatabaseManager, console: Console, *, on: bool) -> int:
    state = await database.switch_row_security(on=on)
    console.result({"database": str(database), "row_security": state.enabled, "role": state.role})
    if on and not state.role_is_bound:
        console.say(f"{state.role}, owner or superuser, is not bound by it: let the service use another role")
    if on:
        console.say("set DB_ROW_SECURITY=true for every process whose role is bound by it")
    return 0


def cleanup(_arguments: Namespace, console: Console) -> int:
    """Mark the expired sessions of all tenants as completed, and do what else a scheduled cleanup does."""

    async def work(database: DatabaseManager) -> int:
        done = await cleanup_once(database=database)
        console.result(
            {
                "completed_sessions": done.completed,
                "expired_contexts": done.expired_contexts,
                "expired_items": done.expired_items,
            }
        )
        return 0

    return _run(work)


def stats(arguments: Namespace, console: Console) -> int:
    """Count the sessions and messages of ``arguments.user``, or of all users, in ``arguments.tenant``."""

    async def work(_database: DatabaseManager) -> int:
        async with get_session() as db:
            found = await SessionRepository(db, arguments.tenant).get_session_stats(arguments.user)
        console.result(asdict(found) | {"avg_messages_per_session": found.avg_messages_per_session})
        return 0

    return _run(work)


def _run(work: Callable[[DatabaseManager], Awaitable[int]]) -> int:
    async def run() -> int:
        try:
            return await work(get_database())
        finally:
            await close_database()

    return asyncio.run(run())
