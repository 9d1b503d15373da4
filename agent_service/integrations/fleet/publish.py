"""Publish what this process measures, and read what all processes have published.

It is kept in Redis, else in the database, and expires unless it is published again: so a process that died vanishes.
"""

import asyncio
import logging
import random
from typing import TYPE_CHECKING, Final

from agent_service.core.errors import (
    ConfigurationError,
    DatabaseError,
    RedisOperationError,
    RedisUnavailableError,
    UndecodableError,
)
from agent_service.core.keys import internal_key
from agent_service.core.milliseconds import to_milliseconds
from agent_service.core.plain_threads import PlainThreads
from agent_service.infrastructure.redis.factory import get_redis_manager
from agent_service.infrastructure.redis.scripts import load_script
from agent_service.infrastructure.redis.transport.base import Argument
from agent_service.integrations.metrics.snapshot import ProcessSnapshot, Snapshots

if TYPE_CHECKING:
    from agent_service.infrastructure.database.engine.manager import DatabaseManager

__all__ = ["publish_fleet", "read_fleet"]

logger = logging.getLogger("agent_service.fleet")

_PUBLISH: Final = load_script("fleet_publish")
_READ: Final = load_script("fleet_read")
_LIVES: Final = 3
"""Intervals that a snapshot is kept: a process may miss two."""
_EARLIEST: Final = 0.75
"""The shortest pause, as a part of the interval: processes that were started together shall not publish in step."""


async def publish_fleet(interval: float = 5.0, *, database: "DatabaseManager | None" = None) -> None:
    """Publish what this process measures every ``interval`` seconds, until cancelled; run one such task a process.

    ::

        service = AgentService(background=[publish_fleet])

    With REDIS_URL set that is one command; else it is one row in the database. A snapshot has at most 64 KiB: of many
    namespaces the 50 most used are named, and the others are summed up. It expires after three intervals without
    another one. While Redis or the database do not serve, the process is not shown, and comes back by itself.

    :param interval: seconds between two snapshots, each shortened at random by up to a quarter.
    :param database: where snapshots are kept without Redis; None: the database of the settings.
    :raises ConfigurationError: if interval is not above 0 and at most one hour, or REDIS_URL or DATABASE_URL cannot be
        used.
    """
    if not isinstance(interval, int | float) or isinstance(interval, bool) or not 0 < interval <= 3600:
        raise ConfigurationError(f"interval must be seconds above 0, at most an hour, got {interval!r:.80}")
    snapshots, loop = Snapshots(), asyncio.get_running_loop()
    threads = PlainThreads(1, "agent-service-fleet")  # with many namespaces a snapshot takes long
    refused = False
    try:
        while True:
            try:
                snapshot = await loop.run_in_executor(threads.pool, snapshots.take)
                kept = await _keep(snapshot, _LIVES * interval, database)
            except RedisUnavailableError:
                pass  # an outage is logged by who connects to the server
            except (RedisOperationError, DatabaseError) as exc:
                if not refused:
                    logger.warning("this process cannot be shown among the others, and tries again: %s", exc)
                refused = True
            else:
                if refused and kept:
                    logger.info("this process is shown among the others again")
                refused = refused and not kept
            await asyncio.sleep(interval * random.uniform(_EARLIEST, 1))  # noqa: S311 - spreads load, keeps no secret
    finally:
        threads.close()


async def read_fleet(*, database: "DatabaseManager | None" = None) -> list[ProcessSnapshot]:
    """Return the latest snapshot of every process that publishes, sorted by ``process``.

    Those that a later version wrote in another format are left out.

    :param database: where snapshots are kept without Redis; None: the database of the settings.
    :raises RedisOperationError: Redis failed.
    :raises DatabaseError: the database failed, or is not migrated.
    :raises ConfigurationError: REDIS_URL or DATABASE_URL cannot be used.
    """
    manager = await get_redis_manager()
    found: list[bytes] | list[str]
    if manager.is_configured:
        found = [each for each in await manager.client.run_script(_READ, _keys(manager.prefix), []) if each is not None]
    else:
        from agent_service.infrastructure.database.connection import get_database  # noqa: PLC0415 - only where needed
        from agent_service.infrastructure.database.fleet import kept_snapshots  # noqa: PLC0415

        found = await kept_snapshots(database or get_database())
    snapshots = []
    for each in found:
        try:
            snapshots.append(ProcessSnapshot.from_json(each))
        except UndecodableError:
            continue
    return sorted(snapshots, key=lambda snapshot: snapshot.process)


async def _keep(snapshot: ProcessSnapshot, seconds: float, database: "DatabaseManager | None") -> bool:
    """Keep a snapshot; False: the database does not serve, which its log tells."""
    data = snapshot.to_json()
    manager = await get_redis_manager()
    if manager.is_configured:
        arguments: list[Argument] = [snapshot.process, data, to_milliseconds(seconds)]
        await manager.client.run_script(_PUBLISH, _keys(manager.prefix), arguments)
    else:
        from agent_service.infrastructure.database.connection import get_database  # noqa: PLC0415 - only where needed
        from agent_service.infrastructure.database.errors.outages import tell_outage  # noqa: PLC0415
        from agent_service.infrastructure.database.fleet import keep_snapshot  # noqa: PLC0415

        kept_by = database or get_database()
        try:
            await keep_snapshot(kept_by, snapshot.process, data.decode(), seconds=seconds)
        except DatabaseError as exc:
            if not tell_outage(kept_by.availability, exc):
                raise
            return False
        if kept_by.availability.away:
            kept_by.availability.answered()
    return True


def _keys(prefix: str) -> list[bytes]:
    """Name the hash of the snapshots and the sorted set of their ends; on a cluster they share a slot."""
    return [internal_key(prefix, "fleet", "{processes}"), internal_key(prefix, "fleet", "{processes}:ends")]
