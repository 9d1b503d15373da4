"""``agent-service import``: conversations of an agent framework's own store into the database of DATABASE_URL."""

import asyncio
import sys
from argparse import Namespace
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from agent_service.cli.console import Console, printable
from agent_service.cli.grammar import add_command, add_group, add_tenant
from agent_service.core.errors import ConfigurationError

if TYPE_CHECKING:
    from agent_service.integrations.importing import ImportReport, Options

__all__ = ["register"]

SKIPPED = 1
STANDARD_INPUT = "-"


def register(commands: Any) -> None:
    """Add ``import`` and what is below it."""
    summary = "bring conversations of an agent framework's own store over into the database of DATABASE_URL"
    kinds = add_group(commands, "import", summary)
    openai = add_command(
        kinds,
        "openai",
        _import_openai,
        "the SQLAlchemySession of the OpenAI Agents SDK; run it again to resume, or to bring what is new",
        "import openai postgresql://app:secret@db/agents --user ada --dry-run",
        "import openai sqlite:///agents.db --user ada",
    )
    _add_common(openai)
    openai.add_argument("--user", required=True, metavar="ID", help="whose the conversations become")
    openai.add_argument("--agent", metavar="ID", help="which agent's they become (default: none)")
    openai.add_argument("--sessions-table", default="agent_sessions", metavar="NAME", help="default agent_sessions")
    openai.add_argument("--messages-table", default="agent_messages", metavar="NAME", help="default agent_messages")
    adk = add_command(
        kinds,
        "adk",
        _import_adk,
        "the DatabaseSessionService of Google ADK, with all state; run it again to resume, or to bring what is new",
        "import adk postgresql://app:secret@db/agents",
    )
    _add_common(adk)
    langgraph = add_command(
        kinds,
        "langgraph",
        _import_langgraph,
        "the PostgreSQL or SQLite checkpointer of LangGraph; run it again to resume, or to bring what is new",
        "import langgraph sqlite:///checkpoints.db",
    )
    _add_common(langgraph)


def _add_common(parser: Any) -> None:
    parser.add_argument(
        "source",
        metavar="SOURCE_URL",
        help="the framework's database, which is only read: postgresql://... or sqlite:///FILE; "
        "- reads the URL from standard input, so that no list of processes shows its password",
    )
    add_tenant(parser)
    parser.add_argument("--schema", metavar="NAME", help="the PostgreSQL schema of the tables")
    parser.add_argument("--dry-run", action="store_true", help="read and compare everything, and write nothing")
    parser.add_argument(
        "--skip-problems",
        action="store_true",
        help="go on past what cannot be brought over, and list it (default: stop there)",
    )
    parser.add_argument("--restart", action="store_true", help="compare from the beginning, even after an interruption")


def _import_openai(arguments: Namespace, console: Console) -> int:
    """Bring over conversations of the OpenAI Agents SDK."""

    async def work(source: str, options: "Options") -> "ImportReport":
        from agent_service.integrations.importing import openai  # noqa: PLC0415 - of use to this command alone

        return await openai.import_openai(
            source,
            user_id=arguments.user,
            agent_id=arguments.agent,
            sessions_table=arguments.sessions_table,
            messages_table=arguments.messages_table,
            schema=arguments.schema,
            options=options,
        )

    return _run(arguments, console, work)


def _import_adk(arguments: Namespace, console: Console) -> int:
    """Bring over sessions of ADK."""

    async def work(source: str, options: "Options") -> "ImportReport":
        from agent_service.integrations.importing import adk  # noqa: PLC0415

        return await adk.import_adk(source, schema=arguments.schema, options=options)

    return _run(arguments, console, work)


def _import_langgraph(arguments: Namespace, console: Console) -> int:
    """Bring over threads of LangGraph."""

    async def work(source: str, options: "Options") -> "ImportReport":
        from agent_service.integrations.importing import langgraph  # noqa: PLC0415

        return await langgraph.import_langgraph(source, schema=arguments.schema, options=options)

    return _run(arguments, console, work)


def _run(arguments: Namespace, console: Console, work: Callable[[str, "Options"], Awaitable["ImportReport"]]) -> int:
    source = sys.stdin.readline().strip() if arguments.source == STANDARD_INPUT else arguments.source
    try:
        report = asyncio.run(_import(source, arguments, console, work))
    except ImportError as exc:
        raise ConfigurationError(str(exc)) from exc
    _show(report, console)
    return SKIPPED if report.problems.count else 0


async def _import(
    source: str,
    arguments: Namespace,
    console: Console,
    work: Callable[[str, "Options"], Awaitable["ImportReport"]],
) -> "ImportReport":
    from agent_service.infrastructure.database.connection import close_database  # noqa: PLC0415
    from agent_service.integrations.importing import Options  # noqa: PLC0415

    with console.progress("Comparing" if arguments.dry_run else "Importing") as advance:
        options = Options(
            tenant_id=arguments.tenant,
            on_problem="skip" if arguments.skip_problems else "stop",
            dry_run=arguments.dry_run,
            restart=arguments.restart,
            progress=lambda report: advance(report.fraction),
        )
        try:
            return await work(source, options)
        finally:
            await close_database()


def _show(report: "ImportReport", console: Console) -> None:
    counts = asdict(report)
    problems = counts.pop("problems")
    counts["seconds"] = round(report.seconds, 3)
    shown = [{"place": each.place, "reason": each.reason} for each in report.problems.first]
    console.result(counts | {"problems": problems["count"]} | ({"first_problems": shown} if console.as_json else {}))
    for each in report.problems.first:
        console.say(f"  not brought over: {printable(str(each), 400)}")
    if report.dry_run:
        console.say("nothing was written: these are the counts of a run without --dry-run")
    elif not report.changed and not report.problems.count:
        console.say("nothing was written: the target has all of it already")
