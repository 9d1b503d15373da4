"""Errors of redis-py, classified and translated into ours: no other leaves this room."""

import re
from collections.abc import Sequence
from typing import Any, Final

from redis import exceptions

from agent_service.core.errors import (
    RedisCommandError,
    RedisOperationError,
    RedisRefusedError,
    RedisUnavailableError,
)
from agent_service.infrastructure.redis.denials import command_name, denial, keys_of

__all__ = ["is_translatable", "translate"]

_DRIVER_ERRORS: Final = (
    exceptions.RedisError,
    exceptions.RedisClusterException,
    OSError,
    EOFError,
    UnicodeEncodeError,  # an argument that has no UTF-8 form
)
# A connection is lost with these when its loop was closed (RuntimeError), or when another task of redis-py drops it
# while a command is being sent on it (AttributeError).
_LOST_CONNECTION = re.compile(r"loop|closed|'NoneType' object has no attribute")

# Replies of a reachable server that cannot serve now. A script repeats the reply of its command in its own message.
_REFUSAL = re.compile(
    r"(?:^|: -?)(?:OOM|READONLY|LOADING|MISCONF|CLUSTERDOWN|TRYAGAIN|MASTERDOWN|NOREPLICAS|BUSY) ", re.MULTILINE
)
_REFUSED_TYPES = (
    exceptions.OutOfMemoryError,
    exceptions.ReadOnlyError,
    exceptions.BusyLoadingError,
    exceptions.ClusterDownError,
    exceptions.MasterDownError,
    exceptions.TryAgainError,
)
# ResponseErrors, and errors of the caller that redis-py classifies as errors of a connection or a cluster.
_COMMAND_TYPES = (
    exceptions.ResponseError,
    exceptions.DataError,
    UnicodeEncodeError,
    exceptions.AuthenticationError,
    exceptions.AuthorizationError,
    exceptions.WatchError,
    exceptions.CrossSlotTransactionError,
    exceptions.InvalidPipelineStack,
)
_NAMED: Final = 3
"""Keys that one message names."""
_CLUSTER_MISUSE = re.compile(r"same (?:key|hash) slot|No way to dispatch|Invalid args|Too many targets")


def is_translatable(exc: BaseException) -> bool:
    """Return whether an error is a failure of Redis or of the way to it; anything else is a bug and passes as it is."""
    if isinstance(exc, RuntimeError | AttributeError):
        return bool(_LOST_CONNECTION.search(str(exc)))
    return isinstance(exc, _DRIVER_ERRORS)


def translate(exc: BaseException, *, sent: bool, command: Sequence[Any] = ()) -> RedisOperationError:
    """Return the error of ours for an error of redis-py; raise it ``from exc``.

    :param sent: whether the command may have reached the server.
    :param command: what failed; a denial names it.
    """
    cause = _unwrapped(exc)
    denied = denial(cause, command)
    if denied is not None:
        return denied
    text = str(cause) or type(cause).__name__
    if isinstance(cause, _REFUSED_TYPES) or (isinstance(cause, exceptions.ResponseError) and _REFUSAL.search(text)):
        return RedisRefusedError(f"Redis cannot serve now: {text}")
    if isinstance(cause, _COMMAND_TYPES) or _is_cluster_misuse(cause):
        return RedisCommandError(f"Redis rejected the command: {text}{_place(text, command)}")
    return RedisUnavailableError(f"Redis is unavailable: {text}", maybe_executed=sent)


def _place(text: str, command: Sequence[Any]) -> str:
    """Return the keys of a command that met another type of value: one of them holds what another program wrote."""
    if "WRONGTYPE" not in text or not command:
        return ""
    keys = keys_of(command)
    named = ", ".join([f"{key[:200]!r}" for key in keys[:_NAMED]]) + (" and others" if len(keys) > _NAMED else "")
    return f" ({command_name(command)} of {named}; delete the key that somebody else wrote)"


def _unwrapped(exc: BaseException) -> BaseException:
    """Return the error inside: on unix sockets redis-py wraps that of a handshake (a wrong password, say)."""
    while isinstance(exc, exceptions.ConnectionError) and exc.args and isinstance(exc.args[0], exceptions.RedisError):
        exc = exc.args[0]
    return exc


def _is_cluster_misuse(exc: BaseException) -> bool:
    return isinstance(exc, exceptions.RedisClusterException) and bool(_CLUSTER_MISUSE.search(str(exc)))
