"""Checks that a server permits what caches need: every command once, on keys made for the check, in one round trip."""

from collections.abc import Sequence
from secrets import token_hex
from typing import Final

from agent_service.core.errors import RedisDeniedError
from agent_service.core.keys import internal_key
from agent_service.infrastructure.redis.client import RedisClient
from agent_service.infrastructure.redis.scripts import load_script, with_source
from agent_service.infrastructure.redis.transport.base import Command

__all__ = ["check_permissions", "describe_denials"]

_NOTHING: Final = load_script("nothing")
_PROBE_MS: Final = 5000


def describe_denials(prefix: str, denials: Sequence[RedisDeniedError]) -> str:
    """Return a sentence that names the commands, the key pattern and the remedy."""
    login = next((str(each) for each in denials if each.lacks == "login"), None)
    if login is not None:
        return login
    unknown = dict.fromkeys(each.command for each in denials if each.unknown and each.command)
    others = [each for each in denials if not each.unknown]
    causes = [_not_offered(list(unknown))] if unknown else []
    if others or not unknown:
        causes.append(_not_permitted(prefix, others))
    return "; ".join(causes)


def _not_offered(names: Sequence[str]) -> str:
    plural = len(names) > 1
    return (
        f"Redis does not know the command{'s' if plural else ''} {', '.join(names)}, which it is too old for or which "
        f"its configuration renamed or disabled; enable {'them' if plural else 'it'}, or use another server"
    )


def _not_permitted(prefix: str, denials: Sequence[RedisDeniedError]) -> str:
    commands = dict.fromkeys(each.command for each in denials if each.lacks == "command" and each.command)
    keyed = dict.fromkeys(each.command for each in denials if each.lacks == "key" and each.command)
    missing = [f"the command{'s' if len(commands) > 1 else ''} {', '.join(commands)}"] if commands else []
    if keyed:
        missing.append(
            f"the keys {prefix}:* (to {', '.join(list(keyed)[:3])}{' and others' if len(keyed) > 3 else ''})"
        )
    elif not commands:
        missing.append("a command or key that a script needs")
    rules = [f"~{prefix}:*", *[f"+{name.lower().replace(' ', '|')}" for name in commands]]
    return f"Redis denies this user {' and '.join(missing)}; permit it, as with ACL SETUSER <user> {' '.join(rules)}"


async def check_permissions(client: RedisClient, prefix: str, keys: Sequence[bytes] = ()) -> Sequence[RedisDeniedError]:
    """Try all commands that caches send; return what is denied.

    :param prefix: first component of every physical key.
    :param keys: entries that were denied before; they are read, and removed.
    :raises RedisOperationError: when the server cannot be asked.
    """
    own = internal_key(prefix, "probe", f"{{{token_hex(8)}}}")
    commands: list[Command] = [*_probes(own, own + b":set")]
    if client.replication is not None:
        commands.append(("WAIT", 0, 1))
    for key in keys:
        commands += [("MGET", key), ("UNLINK", key)]
    try:
        replies = await client.pipeline(commands, denied=True)
    except RedisDeniedError as exc:  # the login, or what a connection is greeted with
        replies = [exc]
    return [reply for reply in replies if isinstance(reply, RedisDeniedError)]


def _probes(text: bytes, scores: bytes) -> Sequence[Command]:
    return [
        ("SET", text, 0, "PX", _PROBE_MS),
        ("INCRBY", text, 1),
        ("SETRANGE", text, 0, b"1"),
        ("GETRANGE", text, 0, 0),
        ("GET", text),
        ("MGET", text),
        ("PERSIST", text),
        ("PEXPIRE", text, _PROBE_MS),
        ("PTTL", text),
        ("ZADD", scores, 1, b"1"),
        ("PEXPIRE", scores, _PROBE_MS),
        ("ZREMRANGEBYSCORE", scores, b"-inf", b"(1"),
        (*_NOTHING.call, 1, text),
        with_source((*_NOTHING.call, 1, text)),
        ("DEL", scores),
        ("UNLINK", text),
    ]
