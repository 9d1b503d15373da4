"""
A process that uses an embedded server: ``python -m tests.redis.embedded_user URL [as-nobody]``.

It prints a line of JSON for each command that it reads: ``health``, ``set``, ``get``, ``child fork``, ``child spawn``,
``describe`` and ``store`` (100 KB, with the error of a store where it fails).
"""

import asyncio
import json
import multiprocessing
import os
import sys
from typing import Any

from agent_service.core.errors import AgentServiceError
from agent_service.core.settings import reset_settings
from agent_service.infrastructure.cache.factory import close_cache, get_cache
from agent_service.infrastructure.redis.client import RedisClient
from agent_service.infrastructure.redis.factory import get_redis_manager

NOBODY = 65534


async def run(command: str) -> Any:
    manager = await get_redis_manager()
    if command == "health":
        return await manager.health_check()
    if command == "describe":
        info = (await manager.client.execute(b"INFO", b"server")).decode()
        folder = (await manager.client.execute(b"CONFIG", b"GET", b"dir"))[1].decode()
        return {"folder": folder, **dict(line.split(":", 1) for line in info.splitlines() if ":" in line)}
    if command == "store":
        await manager.client.execute(b"APPEND", b"stored", b"x" * 100_000)
        return "stored"
    cache = await get_cache("shared")
    if command == "set":
        return await cache.set("key", "value", ttl=3600)
    if command == "get":
        return await cache.get("key")
    raise ValueError(command)


def answer(command: str) -> str:
    async def whole() -> Any:
        try:
            return await run(command)
        except AgentServiceError as exc:
            return {"error": type(exc).__name__, "message": str(exc)}
        finally:
            await close_cache()

    return json.dumps(asyncio.run(whole()))


def in_child(pipe: Any, url: str) -> None:
    os.environ["REDIS_URL"] = url
    reset_settings()
    pipe.send(answer("get"))


def child(kind: str, url: str) -> str:
    context = multiprocessing.get_context(kind)
    ours, its = context.Pipe(duplex=False)
    process = context.Process(target=in_child, args=(its, url))  # type: ignore[attr-defined]
    process.start()
    said = ours.recv()
    process.join()
    return str(said)


def main() -> None:
    url = sys.argv[1]
    os.environ["REDIS_URL"] = url
    if sys.argv[2:] == ["as-nobody"]:
        RedisClient("unix:///nowhere")  # imports what only root may read
        os.setuid(NOBODY)
    for line in sys.stdin:
        name, _, kind = line.strip().partition(" ")
        sys.stdout.write(f"{child(kind, url) if name == 'child' else answer(name)}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
