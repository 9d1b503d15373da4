"""What the commands of the command line are declared with: help, types of arguments, refusals in one line."""

import re
import sys
from argparse import ArgumentParser, ArgumentTypeError, Namespace, RawDescriptionHelpFormatter
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any, Final, NoReturn

from agent_service.cli.console import Console
from agent_service.core.urls.mask import mask_url

__all__ = ["Parser", "Run", "add_command", "add_group", "add_tenant", "duration", "positive"]

Run = Callable[[Namespace, Console], int]

_URL: Final = re.compile(r"[a-z][a-z0-9+]*://.*", re.DOTALL)
_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


class Parser(ArgumentParser):
    """Reports a wrong command line in one line that points to ``--help``, and to a machine as JSON as well."""

    _given: Sequence[str] = ()

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Remember what is parsed, to know how to report what is wrong with it."""
        self._given = sys.argv[1:] if args is None else list(args)
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        """Exit with code 2. What looks like a URL, which may hold a password, is masked."""
        shown = f"{_URL.sub(lambda found: mask_url(found[0]), message)}; see {self.prog} --help"
        if "--json" in self._given:
            Console(as_json=True).result({"error": f"{self.prog}: {shown}", "type": "UsageError"})
        self.exit(2, f"{self.prog}: {shown}\n")


def add_command(commands: Any, name: str, run: Run, summary: str, *examples: str, for_machines: bool = True) -> Parser:
    """Add a command, with its examples in the help, and ``--json`` where machines may use it."""
    parser: Parser = commands.add_parser(
        name,
        help=summary,
        description=f"{summary[0].upper()}{summary[1:]}.",
        epilog="example:\n" + "\n".join(f"  agent-service {each}" for each in examples),
        formatter_class=RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run, json=False)
    if for_machines:
        parser.add_argument("--json", action="store_true", help="print one JSON object instead of text, errors too")
    return parser


def add_group(commands: Any, name: str, summary: str) -> Any:
    """Add a command that only has commands below it."""
    group = commands.add_parser(name, help=summary, description=f"{summary[0].upper()}{summary[1:]}.")
    return group.add_subparsers(required=True, metavar="COMMAND")


def add_tenant(parser: Parser) -> None:
    """Add ``--tenant``."""
    parser.add_argument("--tenant", default="", metavar="ID", help='the tenant (default: the tenant "")')


def positive(text: str) -> int:
    """Return a whole number of at least 1."""
    if not re.fullmatch(r"[0-9]{1,9}", text) or not int(text):
        raise ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)


def duration(text: str) -> timedelta:
    """Return what ``90s``, ``15m``, ``12h``, ``30d`` or ``2w`` means."""
    found = re.fullmatch(r"([0-9]{1,6})([smhdw])", text)
    if found is None:
        raise ArgumentTypeError(f"{text!r} is not a duration such as 90s, 15m, 12h, 30d or 2w")
    return timedelta(**{_UNITS[found[2]]: int(found[1])})
