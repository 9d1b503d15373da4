"""``agent-service triggers ...``: what a tenant has scheduled, and what failed for the last time."""

from argparse import Namespace
from typing import Any

from agent_service.cli.console import Console
from agent_service.cli.grammar import Parser, Run, add_command, add_group
from agent_service.cli.running import with_redis
from agent_service.core.errors import ConfigurationError
from agent_service.infrastructure.redis.manager import RedisManager
from agent_service.tenants import RedisTrigger

__all__ = ["register"]

ABSENT = 1
_AT_ONCE = 0.001
"""Seconds: the shortest time after which a trigger can be due."""


def register(commands: Any) -> None:
    """Add ``triggers`` and what is below it."""
    verbs = add_group(commands, "triggers", "see the triggers of a tenant, retry or discard those that are dead")
    listing = _add(verbs, "list", _list, "list the triggers of a tenant", "triggers list --tenant acme --dead")
    which = listing.add_mutually_exclusive_group()
    which.add_argument("--dead", action="store_true", help="only those that failed for the last time")
    which.add_argument("--late", action="store_true", help="only those whose time has passed")
    _add_name(
        _add(
            verbs,
            "retry",
            _retry,
            "make dead triggers due now, with all attempts",
            "triggers retry --tenant acme --all",
        )
    )
    _add_name(_add(verbs, "discard", _discard, "delete dead triggers", "triggers discard mail ann --tenant acme"))


def _add(verbs: Any, name: str, run: Run, summary: str, example: str) -> Parser:
    parser = add_command(verbs, name, run, summary, example)
    parser.add_argument("--tenant", required=True, metavar="ID", help="the tenant")
    return parser


def _add_name(parser: Parser) -> None:
    parser.add_argument("action", nargs="?", metavar="ACTION", help="of one dead trigger")
    parser.add_argument("identifier", nargs="?", metavar="IDENTIFIER", help="of one dead trigger")
    parser.add_argument("--all", action="store_true", help="all dead triggers of the tenant")


def _list(arguments: Namespace, console: Console) -> int:
    async def work(_manager: RedisManager) -> int:
        triggers = RedisTrigger(arguments.tenant)
        rows: list[list[object]] = []
        if not arguments.dead:
            found = await (triggers.late() if arguments.late else triggers.pending())
            rows += [["pending", each.action, each.identifier, each.due_at, each.attempt, None] for each in found]
        if not arguments.late:
            dead = await triggers.dead()
            rows += [["dead", each.action, each.identifier, each.due_at, each.attempt, each.error] for each in dead]
        console.table("triggers", ("state", "action", "identifier", "due_at", "attempts", "error"), rows)
        return 0

    return with_redis(work)


def _retry(arguments: Namespace, console: Console) -> int:
    async def work(_manager: RedisManager) -> int:
        triggers = RedisTrigger(arguments.tenant)
        chosen = await _chosen(triggers, arguments)
        for action, identifier in chosen:
            await triggers.set(action, identifier, _AT_ONCE)
        console.result({"retried_triggers": len(chosen)})
        return 0 if chosen else ABSENT

    return with_redis(work)


def _discard(arguments: Namespace, console: Console) -> int:
    async def work(_manager: RedisManager) -> int:
        triggers = RedisTrigger(arguments.tenant)
        chosen = await _chosen(triggers, arguments)
        for action, identifier in chosen:
            await triggers.delete(action, identifier)
        console.result({"discarded_triggers": len(chosen)})
        return 0 if chosen else ABSENT

    return with_redis(work)


async def _chosen(triggers: RedisTrigger, arguments: Namespace) -> list[tuple[str, str]]:
    """Return the dead triggers that the command line names: one of them, or all."""
    named = arguments.action is not None
    if arguments.all == named or named != (arguments.identifier is not None):
        raise ConfigurationError("name one dead trigger by ACTION and IDENTIFIER, or give --all")
    dead = [(each.action, each.identifier) for each in await triggers.dead()]
    return dead if arguments.all else [each for each in dead if each == (arguments.action, arguments.identifier)]
