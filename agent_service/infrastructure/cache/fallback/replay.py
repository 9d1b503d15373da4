"""Paying what Redis is owed after an outage: invalidations, then increments.

What was paid leaves the debt at once, so that a replay that breaks off goes on where it stopped. An invalidation may
happen twice. An increment may be sent twice and is made once.
"""

import asyncio
from collections.abc import Awaitable, Iterable, Sequence
from itertools import islice

from agent_service.core.errors import CacheValueError, RedisUnavailableError, RedisUnreplicatedError
from agent_service.core.logging import logger
from agent_service.infrastructure.cache.fallback.journal import Debt, Increment, Journal
from agent_service.infrastructure.cache.patterns import compiled
from agent_service.infrastructure.cache.redis.cache import RedisBackend
from agent_service.infrastructure.cache.redis.counters import REMEMBERED

__all__ = ["pay"]

REPLAY_BATCH = 500
INCREMENTS_TOGETHER = 20


async def pay(redis: RedisBackend, debt: Debt, journal: Journal, *, in_haste: bool = False) -> Debt:
    """Replay the debt of one namespace; return the invalidations that too few replicas have confirmed.

    Patterns take one pass over the keys of Redis, however many they are.

    :param in_haste: clear the namespace in place of a pass over the keys.
    :raises RedisOperationError: when Redis fails again; what is left in ``debt`` was not paid, or not confirmed.
    """
    unconfirmed = Debt()
    try:
        await _pay(redis, debt, journal, unconfirmed, in_haste=in_haste)
    except BaseException:
        debt.owe_again(unconfirmed)
        raise
    return unconfirmed


async def _pay(redis: RedisBackend, debt: Debt, journal: Journal, unconfirmed: Debt, *, in_haste: bool) -> None:
    if debt.cleared:
        unconfirmed.cleared = not await _is_confirmed(redis.clear())
        debt.cleared = False
    for batch in _batches(debt.tags):
        if not await _is_confirmed(redis.invalidate_tags(batch)):
            unconfirmed.tags.update(dict.fromkeys(batch))
        _forget(debt.tags, batch)
    if debt.patterns:
        globs = None if in_haste else await compiled(debt.patterns)
        if globs is None:
            redis.counters.pattern_clears += 1
            unconfirmed.cleared |= not await _is_confirmed(redis.clear())
        elif not await _is_confirmed(redis.remove_matching(globs)):
            unconfirmed.patterns.update(debt.patterns)
        debt.patterns.clear()
    for batch in _batches(debt.stale):
        if not await _is_confirmed(redis.remove(batch)):
            unconfirmed.stale.update(dict.fromkeys(batch))
        _forget(debt.stale, batch)
    for keys in _batches(debt.added, INCREMENTS_TOGETHER):
        paying = [_pay_counter(redis, key, debt, journal) for key in keys]
        for outcome in await asyncio.gather(*paying, return_exceptions=True):
            if outcome is not None:
                raise outcome


async def _is_confirmed(invalidation: Awaitable[object]) -> bool:
    try:
        await invalidation
    except RedisUnreplicatedError:
        return False
    return True


async def _pay_counter(redis: RedisBackend, key: str, debt: Debt, journal: Journal) -> None:
    owed = debt.added[key]
    while owed:
        await _add(redis, key, owed[0], journal)
        owed.pop(0)
    del debt.added[key]


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


def _batches(owed: Iterable[str], size: int = REPLAY_BATCH) -> "list[Sequence[str]]":
    keys = iter(list(owed))
    batches: list[Sequence[str]] = []
    while batch := list(islice(keys, size)):
        batches.append(batch)
    return batches


def _forget(owed: dict[str, None], paid: Sequence[str]) -> None:
    for each in paid:
        del owed[each]
