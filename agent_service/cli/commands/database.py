"""``agent-service db ...``, ``cleanup`` and ``stats``: the database of DATABASE_URL."""

from argparse import Namespace
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

from agent_service.cli.console import Console
from agent_service.cli.grammar import add_command, add_group, add_tenant, duration
from agent_service.cli.running import with_database
from agent_service.core.errors import ConfigurationError
from agent_service.core.settings import get_settings
from agent_service.infrastructure.database.connection import get_session
from agent_service.infrastructure.database.engine.manager import DatabaseManager
from agent_service.infrastructure.database.maintenance.cleanup import cleanup_once
from agent_service.infrastructure.database.repositories.session import SessionRepository

if TYPE_CHECKING:
    from agent_service.infrastructure.database.schema.planning import SchemaPlan
    from agent_service.infrastructure.database.schema.row_security import Others

__all__ = ["register"]

DIFFERENT = 1
_RETENTION: Final = {
    "purge-after": "sessions that were deleted longer ago than this",
    "purge-threads-after": "LangGraph's threads to which nobody wrote for this long",
    "purge-conversations-after": "Pydantic AI's conversations that were not saved for this long",
}


def register(commands: Any) -> None:
    """Add ``db`` and what is below it, ``cleanup`` and ``stats``."""
    verbs = add_group(commands, "db", "migrate or check the database of DATABASE_URL")
    up = add_command(
        verbs,
        "upgrade",
        _upgrade,
        "bring the tables to the newest revision while services use them; run it again to resume",
        "db upgrade --dry-run",
        "db upgrade",
    )
    up.add_argument(
        "revision",
        nargs="?",
        default="head",
        metavar="REV",
        help='a revision, or "+1" for one on (default: the newest)',
    )
    up.add_argument("--dry-run", action="store_true", help="only list the steps, and what each locks")
    add_command(verbs, "check", _check, "compare the tables with the package's models", "db check")
    down = add_command(
        verbs,
        "downgrade",
        _downgrade,
        "take the tables back to an earlier revision; data of later ones is lost",
        "db downgrade base --yes",
    )
    down.add_argument("revision", metavar="REV", help='a revision, "-1" for one back, or "base" for none')
    down.add_argument("--yes", action="store_true", help="do not ask")
    enable = add_command(
        verbs,
        "enable-rls",
        _enable_row_security,
        "have PostgreSQL itself keep tenants apart (row-level security); first set DB_ROW_SECURITY for every service",
        "db enable-rls",
    )
    enable.add_argument(
        "--yes", action="store_true", help="do not ask, even if running processes may no longer see any row"
    )
    add_command(
        verbs,
        "disable-rls",
        _disable_row_security,
        "turn row-level security off: the package alone keeps tenants apart",
        "db disable-rls",
    )
    clean = add_command(
        commands,
        "cleanup",
        _cleanup,
        "complete expired sessions and remove what has expired, once",
        "cleanup --purge-after 30d",
    )
    for name, what in _RETENTION.items():
        clean.add_argument(
            f"--{name}", type=duration, metavar="TIME", help=f"also remove {what}, such as 12h, 30d or 2w"
        )
    show = add_command(
        commands,
        "stats",
        _stats,
        "count a tenant's sessions and messages, or those of one of its users",
        "stats --tenant acme --user alice",
    )
    show.add_argument("--user", metavar="ID", help="the user (default: all users)")
    add_tenant(show)


def _upgrade(arguments: Namespace, console: Console) -> int:
    """Bring the tables to ``arguments.revision``, or say what that would do."""

    async def work(database: DatabaseManager) -> int:
        if arguments.dry_run:
            return _show_plan(database, await database.plan(arguments.revision), console)
        await database.upgrade(arguments.revision, report=console.note)
        state = await database.check()
        console.result({"database": str(database), "revision": state.current})
        return 0

    return with_database(work)


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


def _downgrade(arguments: Namespace, console: Console) -> int:
    """Take the tables back to ``arguments.revision``; ask first."""

    async def work(database: DatabaseManager) -> int:
        state = await database.check()
        danger = (
            f"what the revisions after {arguments.revision} up to {state.current} added to {database} is removed, with "
            "all that is stored in it."
        )
        if not arguments.yes and not console.confirms(f"{danger[0].upper()}{danger[1:]}\nGo back now?"):
            raise ConfigurationError(f"not done: {danger} Run this again with --yes to go on")
        await database.downgrade(arguments.revision)
        state = await database.check()
        console.result({"database": str(database), "revision": state.current})
        return 0

    return with_database(work)


def _check(_arguments: Namespace, console: Console) -> int:
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
        console.say("The tables are those that this version expects." if state.ok else state.remedy)
        return 0 if state.ok else DIFFERENT

    return with_database(work)


def _enable_row_security(arguments: Namespace, console: Console) -> int:
    """Put the policies between tenants in force; ask first where that would hide every row from a process."""

    async def work(database: DatabaseManager) -> int:
        others = await database.bound_by_policies()
        danger = _danger(others, here=get_settings().db_row_security)
        if danger and not arguments.yes and not console.confirms(f"{danger}\nPut the policies in force now?"):
            raise ConfigurationError(f"not put in force: {danger} Then run this again, or with --yes to go on anyway")
        return await _switch_row_security(database, console, on=True)

    return with_database(work)


def _disable_row_security(_arguments: Namespace, console: Console) -> int:
    """Take the policies between tenants out of force."""
    return with_database(lambda database: _switch_row_security(database, console, on=False))


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


def _cleanup(arguments: Namespace, console: Console) -> int:
    """Mark the expired sessions of all tenants as completed, and do what else a scheduled cleanup does."""

    async def work(database: DatabaseManager) -> int:
        done = await cleanup_once(
            purge_after=arguments.purge_after,
            purge_threads_after=arguments.purge_threads_after,
            purge_conversations_after=arguments.purge_conversations_after,
            database=database,
        )
        console.result(
            {
                "completed_sessions": done.completed,
                "purged_sessions": done.purged,
                "purged_threads": done.purged_threads,
                "purged_conversations": done.purged_conversations,
                "expired_contexts": done.expired_contexts,
                "expired_items": done.expired_items,
            }
        )
        return 0

    return with_database(work)


def _stats(arguments: Namespace, console: Console) -> int:
    """Count the sessions and messages of ``arguments.user``, or of all users, in ``arguments.tenant``."""

    async def work(_database: DatabaseManager) -> int:
        async with get_session() as db:
            found = await SessionRepository(db, arguments.tenant).get_session_stats(arguments.user)
        console.result(asdict(found) | {"avg_messages_per_session": found.avg_messages_per_session})
        return 0

    return with_database(work)
