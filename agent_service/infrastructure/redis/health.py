"""Asking Redis how it is: for health checks, which never raise."""

import time
from collections.abc import Sequence
from typing import Any

from agent_service.core.errors import RedisDeniedError, RedisOperationError, RedisRefusedError
from agent_service.infrastructure.redis.client import RedisClient
from agent_service.infrastructure.redis.permissions import check_permissions, describe_denials

__all__ = ["check_health", "unknown_health"]


def unknown_health() -> dict[str, Any]:
    """Return the report on a Redis that was not asked."""
    health: dict[str, Any] = dict.fromkeys(("ok", "configured", "latency_ms", "version", "mode", "error"))
    return {**health, "ok": False, "configured": False, "limits": []}


async def check_health(client: RedisClient, prefix: str) -> dict[str, Any]:
    """Ask Redis; return a report with what it answered before it failed, if it did.

    :param prefix: first component of the keys that must be permitted.
    """
    health = {**unknown_health(), "configured": True}
    try:
        started = time.perf_counter()
        if await _ask(client, "PING") is not None:
            health["latency_ms"] = round((time.perf_counter() - started) * 1e3, 3)
        facts = _facts(await _ask(client, "INFO", "server") or b"")
        health.update(version=facts.get("redis_version"), mode=facts.get("redis_mode") or facts.get("server_mode"))
        denials = await _denials(client, prefix)
        health.update(ok=not denials, error=describe_denials(prefix, denials) if denials else None)
        health["limits"] = list(client.substitutes.losses.values())
    except RedisOperationError as exc:
        health["error"] = str(exc)
    return health


async def _ask(client: RedisClient, *command: str) -> Any:
    """Run a command that can be done without; None where the server denies it."""
    try:
        return await client.execute(*command)
    except RedisDeniedError as exc:
        if exc.lacks != "command" or not client.substitutes.lose(exc.command):
            raise
        return None


async def _denials(client: RedisClient, prefix: str) -> Sequence[RedisDeniedError]:
    try:
        return await check_permissions(client, prefix)
    except RedisRefusedError:  # out of memory, say: what is permitted cannot be found out now
        return ()


def _facts(info: bytes) -> dict[str, str]:
    lines = info.decode(errors="replace").splitlines()
    return dict(line.split(":", 1) for line in lines if ":" in line)
