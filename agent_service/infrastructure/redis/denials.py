"""Denials: commands, keys, channels or logins that a server refuses until an operator permits them."""

import re
from collections.abc import Sequence
from typing import Any, Final

from redis import exceptions

from agent_service.core.errors import RedisDeniedError

__all__ = ["command_name", "denial", "keys_of"]

# The texts of Redis 6.2, 7 and 8, of Valkey and of proxies; a script repeats them in its own message.
_UNKNOWN: Final = re.compile(
    r"unknown (?:redis )?(?:sub)?command|unsupported command|command\b.{0,60}\bis not (?:supported|available)"
    r"|command\b.{0,60}\bnot supported",
    re.IGNORECASE,
)
_SCRIPT: Final = re.compile(r"user executing the script can't|ACL failure in script|command called from")
_NAMED: Final = re.compile(r"(?:run the|unknown command) ['`]?([\w|]+)['`]?", re.IGNORECASE)
_CALLED_BY_SCRIPT: Final = "a command that a script calls"
_LOGIN: Final = re.compile(r"^(?:NOAUTH|WRONGPASS)\b")
_KEYLESS: Final = frozenset(
    {"CLIENT", "INFO", "HELLO", "SCAN", "PING", "CLUSTER", "MULTI", "EXEC", "AUTH", "SELECT", "TIME"}
)
_MANY_KEYS: Final = frozenset({"MGET", "UNLINK", "DEL"})
_MOST_KEYS: Final = 100
_SCRIPTS: Final = frozenset({"EVAL", "EVALSHA"})
_CONTAINERS: Final = frozenset({"CLIENT", "CLUSTER"})


def command_name(command: Sequence[Any]) -> str:
    """Return a command's name in upper case, with its subcommand where the name alone says little."""
    words = [word.decode(errors="replace") if isinstance(word, bytes) else str(word) for word in command[:2]]
    name = words[0].upper() if words else ""
    return f"{name} {words[1].upper()}" if name in _CONTAINERS and len(words) > 1 else name


def denial(exc: BaseException, command: Sequence[Any]) -> RedisDeniedError | None:
    """Return our error for an error of redis-py that denies a command; None for any other.

    :param command: what was sent, as far as it is known.
    """
    text = str(exc) or type(exc).__name__
    if isinstance(exc, exceptions.AuthenticationError) or _LOGIN.match(text):
        return RedisDeniedError(
            f"Redis denies the login: {text}; correct the user name and password in the URL",
            command="AUTH",
            lacks="login",
        )
    if not isinstance(exc, exceptions.ResponseError):
        return None
    named = _NAMED.search(text)  # while connecting, it is another command than the caller's
    name = named[1].upper().replace("|", " ") if named else command_name(command)
    if _SCRIPT.search(text):
        name = ""  # not EVALSHA, but a command that the script calls, which the server does not name
    if isinstance(exc, exceptions.NoPermissionError) or text.startswith("NOPERM") or _SCRIPT.search(text):
        lacks = "channel" if "channel" in text else "key" if re.search(r"access .*\bkeys?\b", text) else "command"
        what = (
            f"the keys {_pattern(command)} to {name or _CALLED_BY_SCRIPT}"
            if lacks == "key"
            else name or _CALLED_BY_SCRIPT
        )
        return RedisDeniedError(
            f"Redis denies this user {what}: {text}; permit it with ACL SETUSER, or use another user in the URL",
            command=name,
            lacks=lacks,
            keys=keys_of(command) if lacks == "key" else (),
        )
    if _UNKNOWN.search(text):
        return RedisDeniedError(
            f"Redis does not offer {name or _CALLED_BY_SCRIPT}: {text}; enable it, or use another server",
            command=name,
            unknown=True,
        )
    return None


def _pattern(command: Sequence[Any]) -> str:
    """Return the pattern of all keys of the prefix: the first component of the first key, up to its colon."""
    keys = keys_of(command)
    text = keys[0].decode(errors="replace") if keys else "*"
    prefix, colon, _ = text.partition(":")
    return f"{prefix}:*" if colon else f"{text:.80}"


def keys_of(command: Sequence[Any]) -> tuple[bytes, ...]:
    """Return the keys of a command, as far as they are known."""
    name = command_name(command)
    if name in _SCRIPTS:
        keys = command[3 : 3 + int(command[2])]
    elif name.partition(" ")[0] in _KEYLESS:
        keys = ()
    else:
        keys = command[1 : 1 + _MOST_KEYS] if name in _MANY_KEYS else command[1:2]
    return tuple([key if isinstance(key, bytes) else str(key).encode() for key in keys[:_MOST_KEYS]])
