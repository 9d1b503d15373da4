"""The command's grammar: every command, in the order of the help."""

from importlib.metadata import version

from agent_service.cli.commands import (
    cache,
    completion,
    database,
    importing,
    outbox,
    replay,
    sessions,
    settings,
    top,
    tour,
    triggers,
)
from agent_service.cli.grammar import Parser

__all__ = ["build_parser"]


def build_parser() -> Parser:
    """Return the parser; ``run`` of the parsed arguments is the command."""
    parser = Parser(
        prog="agent-service",
        description="See and operate the cache and the sessions of agent_service. "
        "Settings come from the environment and .env.",
    )
    parser.add_argument("--version", action="version", version=f"agent-service {version('agent-service')}")
    parser.set_defaults(parser=parser)  # for who describes it to a shell
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for each in (tour, replay, database, sessions, importing, outbox, cache, triggers, top, settings, completion):
        each.register(commands)
    return parser
