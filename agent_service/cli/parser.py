"""The command's grammar and its help."""

import re
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NoReturn

from agent_service.cli.console import Console
from agent_service.cli.database import (
    check,
    cleanup,
    disable_row_security,
    downgrade,
    enable_row_security,
    stats,
    upgrade,
)
from agent_service.cli.importing import add_import
from agent_service.cli.replay import DEFAULT_ENTRIES, DEFAULT_WORKERS, replay
from agent_service.cli.settings import show_settings
from agent_service.cli.tour import tour
from agent_service.core.urls.mask import mask_url

__all__ = ["Parser", "build_parser"]

_URL: Final = re.compile(r"[a-z][a-z0-9+]*://.*", re.DOTALL)
Run = Callable[[Namespace, Console], int]


class Parser(ArgumentParser):
    """Reports a wrong command line in one line that points to ``--help``."""

    def error(self, message: str) -> NoReturn:
        """Exit with code 2. What looks like a URL, which may hold a password, is masked."""
        shown = _URL.sub(lambda found: mask_url(found[0]), message)
        self.exit(2, f"{self.prog}: {shown}; see {self.prog} --help\n")


def build_parser() -> Parser:
    """Return the parser; ``run`` of the parsed arguments is the command."""
    parser = Parser(
        prog="agent-service",
        description="See and measure the cache and the sessions of agent_service. "
        "Settings come from the environment and .env.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_replay(commands)
    _add_database(commands)
    add_import(commands, _add)
    _add(commands, "settings", show_settings, "show every setting, secrets masked", "agent-service settings")
    _add(
        commands,
        "tour",
        tour,
        "show everything at work in a temporary folder, without any server: the examples, a cache trace, conversations",
        "agent-service tour",
        for_machines=False,
    )
    return parser


def _add(commands: Any, name: str, run: Run, summary: str, example: str, *, for_machines: bool = True) -> Parser:
    """Add a command, with its example in the help, and ``--json`` where machines may use it."""
    parser: Parser = commands.add_parser(
        name,
        help=summary,
        description=f"{summary[0].upper()}{summary[1:]}.",
        epilog=f"example:\n  {example}",
        formatter_class=RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run, json=False)
    if for_machines:
        parser.add_argument("--json", action="store_true", help="print one JSON object instead of text")
    return parser


def _add_replay(commands: Any) -> None:
    parser = _add(
        commands,
        "replay",
        replay,
        "send a cache trace through a memory cache, or store conversations in the database of DATABASE_URL,"
        "\nread them back and compare",
        "agent-service replay --trace trace.csv.gz --entries 1000"
        "\n  agent-service replay --sessions monday.jsonl.gz tuesday.jsonl.gz --workers 8",
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--trace", type=Path, metavar="FILE", help="gzip CSV with the header timestamp,key[,size]")
    what.add_argument(
        "--sessions",
        type=Path,
        nargs="+",
        metavar="FILE",
        help="gzip JSON lines, one conversation a line: an object with session_id and messages",
    )
    parser.add_argument(
        "--entries",
        type=_positive,
        default=DEFAULT_ENTRIES,
        metavar="N",
        help=f"entries that the cache holds (trace only; default {DEFAULT_ENTRIES:,})",
    )
    parser.add_argument(
        "--workers",
        type=_positive,
        default=DEFAULT_WORKERS,
        metavar="N",
        help=f"conversations under way at once (sessions only; default {DEFAULT_WORKERS})",
    )


def _add_database(commands: Any) -> None:
    summary = "migrate or check the database of DATABASE_URL"
    database = commands.add_parser("db", help=summary, description=f"{summary[0].upper()}{summary[1:]}.")
    verbs = database.add_subparsers(required=True, metavar="COMMAND")
    up = _add(
        verbs,
        "upgrade",
        upgrade,
        "bring the tables to the newest revision while services use them; run it again to resume",
        "agent-service db upgrade --dry-run\n  agent-service db upgrade",
    )
    up.add_argument(
        "revision",
        nargs="?",
        default="head",
        metavar="REV",
        help='a revision, or "+1" for one on (default: the newest)',
    )
    up.add_argument("--dry-run", action="store_true", help="only list the steps, and what each locks")
    _add(verbs, "check", check, "compare the tables with the package's models", "agent-service db check")
    down = _add(
        verbs,
        "downgrade",
        downgrade,
        "take the tables back to an earlier revision; data of later ones is lost",
        "agent-service db downgrade base",
    )
    down.add_argument("revision", metavar="REV", help='a revision, "-1" for one back, or "base" for none')
    enable = _add(
        verbs,
        "enable-rls",
        enable_row_security,
        "have PostgreSQL itself keep tenants apart (row-level security); first set DB_ROW_SECURITY for every service",
        "agent-service db enable-rls",
    )
    enable.add_argument(
        "--yes", action="store_true", help="do not ask, even if running processes may no longer see any row"
    )
    _add(
        verbs,
        "disable-rls",
        disable_row_security,
        "turn row-level security off: the package alone keeps tenants apart",
        "agent-service db disable-rls",
    )
    _add(commands, "cleanup", cleanup, "mark expired sessions as completed, once", "agent-service cleanup")
    show = _add(
        commands,
        "stats",
        stats,
        "count a tenant's sessions and messages, or those of one of its users",
        "agent-service stats --tenant acme --user alice",
    )
    show.add_argument("--user", metavar="ID", help="the user (default: all users)")
    show.add_argument("--tenant", default="", metavar="ID", help='the tenant (default: the tenant "")')


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


_positive.__name__ = "number of at least 1"  # what argparse calls a value it refuses
