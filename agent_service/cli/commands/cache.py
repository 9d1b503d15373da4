"""``agent-service cache ...``: look into the cache in Redis, and invalidate."""

from argparse import Namespace
from typing import Any

from agent_service.cli.console import Console, as_json_text
from agent_service.cli.grammar import Parser, Run, add_command, add_group, positive
from agent_service.cli.running import with_redis
from agent_service.core.ttl import NEVER
from agent_service.infrastructure.cache.factory import open_cache
from agent_service.infrastructure.cache.interface import MISS
from agent_service.infrastructure.redis.manager import RedisManager

__all__ = ["register"]

ABSENT = 1
SHOWN = 100


def register(commands: Any) -> None:
    """Add ``cache`` and what is below it."""
    verbs = add_group(commands, "cache", "look into the cache of REDIS_URL, and invalidate")
    getting = _add(
        verbs, "get", _get, "show the value of a key as JSON; exit code 1 where there is none", "cache get user:1"
    )
    getting.add_argument("key", metavar="KEY")
    living = _add(verbs, "ttl", _ttl, "show how many seconds a key still lives", "cache ttl user:1 --namespace users")
    living.add_argument("key", metavar="KEY")
    scanning = _add(verbs, "scan", _scan, "list keys that match a pattern", "cache scan 'user:*' --limit 20")
    scanning.add_argument("pattern", nargs="?", default="*", metavar="PATTERN", help="a Redis glob (default: *)")
    scanning.add_argument(
        "--limit", type=positive, default=SHOWN, metavar="N", help=f"the most keys to show (default {SHOWN})"
    )
    invalidating = _add(
        verbs,
        "invalidate",
        _invalidate,
        "make entries misses for every process: keys, tags, a pattern, or the whole namespace",
        "cache invalidate user:1 user:2",
        "cache invalidate --tag user:1 --tag team:red",
        "cache invalidate --pattern 'user:*'",
    )
    what = invalidating.add_mutually_exclusive_group(required=True)
    what.add_argument("keys", nargs="*", default=[], metavar="KEY")
    what.add_argument("--tag", action="append", default=[], metavar="TAG", help="entries with the tag; may be repeated")
    what.add_argument("--pattern", metavar="PATTERN", help="keys that match a Redis glob; looks at all keys")
    what.add_argument("--all", action="store_true", help="the whole namespace")


def _add(verbs: Any, name: str, run: Run, summary: str, *examples: str) -> Parser:
    parser = add_command(verbs, name, run, summary, *examples)
    parser.add_argument("--namespace", default="", metavar="NAME", help="of the cache (default: the default one)")
    return parser


def _get(arguments: Namespace, console: Console) -> int:
    async def work(_manager: RedisManager) -> int:
        found = await (await open_cache(arguments.namespace)).lookup(arguments.key)
        if console.as_json:
            console.result({"found": found is not MISS, "value": None if found is MISS else found.value})
        elif found is MISS:
            console.note("there is no such entry")
        else:
            console.say(as_json_text(found.value, indent=2))
        return ABSENT if found is MISS else 0

    return with_redis(work)


def _ttl(arguments: Namespace, console: Console) -> int:
    async def work(_manager: RedisManager) -> int:
        seconds = await (await open_cache(arguments.namespace)).ttl(arguments.key)
        shown = "never expires" if seconds is NEVER else seconds
        if seconds is None and not console.as_json:
            console.note("there is no such entry")
        else:
            console.result({"found": seconds is not None, "ttl": shown})
        return ABSENT if seconds is None else 0

    return with_redis(work)


def _scan(arguments: Namespace, console: Console) -> int:
    async def work(_manager: RedisManager) -> int:
        cache = await open_cache(arguments.namespace)
        keys: list[str] = []
        more = False
        async for key in cache.scan(arguments.pattern):
            if len(keys) == arguments.limit:
                more = True
                break
            keys.append(key)
        console.table("keys", ("key",), [[each] for each in keys], more=more)
        if more:
            console.note(f"there are more than {arguments.limit:,}: narrow the pattern, or raise --limit")
        return 0

    return with_redis(work)


def _invalidate(arguments: Namespace, console: Console) -> int:
    async def work(_manager: RedisManager) -> int:
        cache = await open_cache(arguments.namespace)
        if arguments.keys:
            console.result({"deleted": await cache.delete_many(arguments.keys)})
        elif arguments.pattern is not None:
            console.result({"deleted": await cache.delete_pattern(arguments.pattern)})
        else:
            await (cache.clear() if arguments.all else cache.invalidate_tags(arguments.tag))
            console.result({"invalidated": arguments.tag or "the whole namespace"})
        return 0

    return with_redis(work)
