"""The rows, what each needs, and the run of one cell."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from benchmarks.conformance.adapter import Adapter, Feature
from benchmarks.conformance.rows import keys, loads, near, outages, stale, stored, tags
from benchmarks.conformance.stage import Sizes, Stage
from benchmarks.conformance.verdict import Answer, Verdict
from tests.servers.redis import RedisServer

__all__ = ["ROWS", "Row", "probe"]

CELL_SECONDS = 120


@dataclass(frozen=True, slots=True)
class Row:
    """A behaviour and its probe.

    A library without the feature ``needs`` is not probed. Where the row says how that feature behaves the answer is
    "n/a", because there is nothing to behave; where the row asks for the feature itself it is "no".
    """

    behaviour: str
    probe: Callable[[Stage], Awaitable[Verdict]]
    needs: Feature | None = None
    without: Answer = "n/a"


ROWS = (
    Row("50 concurrent cold calls make 1 load", loads.concurrent_cold_calls),
    Row("cancelling the first caller leaves the other waiters alive", loads.cancelled_first_caller, Feature.ASYNC),
    Row("cold start over 4 processes makes 1 load", loads.cold_start, Feature.SERVER),
    Row(
        "key invalidated while loading: the load's value is not served afterwards", loads.key_invalidated_while_loading
    ),
    Row("tag invalidated while loading", loads.tag_invalidated_while_loading, Feature.TAGS),
    Row("f(1), f(a=1), f(1, 2), f(1, b=2) share one entry", keys.same_arguments_written_differently),
    Row("two short-lived instances never share an entry", keys.short_lived_instances),
    Row("keys of different arguments never collide", keys.different_arguments),
    Row("None is cached when asked", keys.none_is_cached),
    Row("mutating a result does not change the cache", keys.mutated_result),
    Row("20 callers of a failing load make 1 load", loads.failing_load),
    Row("delete during an outage is not resurrected", outages.delete_during_an_outage, Feature.SERVER),
    Row("L1 distrusted after a lost connection", near.distrusted_after_a_lost_connection, Feature.L1),
    Row("L1 really invalidated with redis-py 8 (RESP3 default)", near.invalidated_by_pushes, Feature.L1),
    Row("breaker with half-open probe on the cache", outages.breaker_with_a_probe, Feature.SERVER),
    Row("no code execution from cached bytes", stored.no_code_from_stored_bytes, Feature.SERVER),
    Row("O(1) tags without clocks", tags.constant_cost_of_a_tag, Feature.TAGS, without="no"),
    Row("stale-on-error, soft and hard timeouts, early refresh together", stale.stale_by_choice),
)


async def probe(row: Row, kind: type[Adapter], server: RedisServer, sizes: Sizes) -> Verdict:
    """Find out what belongs into one cell. ``server`` must be empty, and may be killed."""
    if row.needs is not None and row.needs not in kind.features:
        return Verdict(row.without, f"no {row.needs.value.removeprefix('a ').removeprefix('an ')}")
    async with asyncio.timeout(CELL_SECONDS):
        return await row.probe(Stage(kind, server, sizes))
