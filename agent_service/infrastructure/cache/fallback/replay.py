"""Replaying what Redis missed in an outage: invalidations, then increments.

What was replayed leaves the pending operations at once, so that a replay that breaks off goes on where it stopped. An
invalidation may happen twice. An increment may be sent twice and is made once.
"""

import asyncio
import logging
from collections.abc import Awaitable, Iterable, Sequence
from itertools import islice

from agent_service.core.errors import CacheValueError, RedisUnavailableError, RedisUnreplicatedError
from agent_service.infrastructure.cache.fallback.journal import Journal
from agent_service.infrastructure.cache.fallback.pending import Increment, PendingOperations
from agent_service.infrastructure.cache.patterns import compiled
from agent_service.infrastructure.cache.redis.cache import RedisBackend
from agent_service.infrastructure.cache.redis.counters import REMEMBERED

__all__ = ["replay"]

logger = logging.getLogger("agent_service.cache")

REPLAY_BATCH = 500
INCREMENTS_TOGETHER = 20


async def replay(
    redis: RedisBackend, pending: PendingOperations, journal: Journal, *, in_haste: bool = False
) -> PendingOperations:
    """Replay the operations of one namespace; return the invalidations that too few replicas have confirmed.

    Patterns take one pass over the keys of Redis, however many they are.

    :param in_haste: clear the namespace in place of a pass over the keys.
    :raises RedisOperationError: when Redis fails again; what is left in ``pending`` was not made, or not confirmed.
    """
    unconfirmed = PendingOperations(journal.changes)
    try:
        await _replay_invalidations(redis, pending, unconfirmed, in_haste=in_haste)
        await _replay_increments(redis, pending, journal)
    except BaseException:
        pending.restore(unconfirmed)
        raise
    return unconfirmed


async def _replay_invalidations(
    redis: RedisBackend, pending: PendingOperations, unconfirmed: PendingOperations, *, in_haste: bool
) -> None:
    if pending.cleared:
        if not await _is_confirmed(redis.clear()):
            unconfirmed.unconfirmed(cleared=True)
        pending.done_clear()
    for tags in _batches(pending.tags):
        if not await _is_confirmed(redis.invalidate_tags(tags)):
            unconfirmed.unconfirmed(tags=tags)
        pending.done_tags(tags)
    if pending.patterns:
        await _replay_patterns(redis, pending, unconfirmed, in_haste=in_haste)
    for keys in _batches(pending.keys):
        if not await _is_confirmed(redis.remove(keys)):
            unconfirmed.unconfirmed(keys=keys)
        pending.done_keys(keys)


async def _replay_patterns(
    redis: RedisBackend, pending: PendingOperations, unconfirmed: PendingOperations, *, in_haste: bool
) -> None:
    globs = None if in_haste else await compiled(pending.patterns)
    if globs is None:
        redis.counters.pattern_clears += 1
        if not await _is_confirmed(redis.clear()):
            unconfirmed.unconfirmed(cleared=True)
    elif not await _is_confirmed(redis.remove_matching(globs)):
        unconfirmed.unconfirmed(patterns=pending.patterns)
    pending.done_patterns()


async def _replay_increments(redis: RedisBackend, pending: PendingOperations, journal: Journal) -> None:
    for counters in _batches(pending.increments, INCREMENTS_TOGETHER):
        adding = [_replay_counter(redis, key, pending, journal) for key in counters]
        for outcome in await asyncio.gather(*adding, return_exceptions=True):
            if outcome is not None:
                raise outcome


async def _is_confirmed(invalidation: Awaitable[object]) -> bool:
    try:
        await invalidation
    except RedisUnreplicatedError:
        return False
    return True


async def _replay_counter(redis: RedisBackend, key: str, pending: PendingOperations, journal: Journal) -> None:
    done = 0
    try:
        for increment in pending.increments[key]:
            await _add(redis, key, increment, journal)
            done += 1
    finally:
        pending.done_increments(key, done)


async def _add(redis: RedisBackend, key: str, increment: Increment, journal: Journal) -> None:
    changes, now = journal.changes, journal.monotonic()
    if increment.number is None:
        increment.number, increment.sent_at = changes.begin(), now
    elif now - increment.sent_at > REMEMBERED:
        logger.warning("an increment was sent more than %g s ago and its outcome will stay unknown", REMEMBERED)
        changes.end(increment.number)
        return
    try:
        await redis.add_once(key, increment.amount, increment.seconds, changes.change(increment.number))
    except CacheValueError:
        logger.warning("a counter that was incremented during the outage is no integer in Redis; it stays as it is")
    except RedisUnavailableError as exc:
        if not exc.maybe_executed:
            changes.end(increment.number)
            increment.number = None
        raise
    changes.end(increment.number)


def _batches(names: Iterable[str], size: int = REPLAY_BATCH) -> list[Sequence[str]]:
    left = iter(list(names))
    batches: list[Sequence[str]] = []
    while batch := list(islice(left, size)):
        batches.append(batch)
    return batches
