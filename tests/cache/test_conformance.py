"""The table of ``benchmarks.conformance``: what it says of ours is tested, and so is that its probes can say no."""

from collections.abc import Iterator
from typing import Any, ClassVar

import pytest

from benchmarks.conformance.adapter import PLAIN, Adapter, Feature, Function, Options
from benchmarks.conformance.ours import OURS, OursRedis
from benchmarks.conformance.rows import outages
from benchmarks.conformance.stage import QUICK
from benchmarks.conformance.table import ROWS, Row, probe
from tests.servers.redis import RedisServer

pytestmark = pytest.mark.server  # each starts some of its own

HANDED_ON = {outages.delete_during_an_outage, outages.breaker_with_a_probe}
"""What becomes of these is for the caller of a bare ``RedisCache``, which raises in an outage."""


KILLERS = {row.probe for row in ROWS if row.probe.__module__ == outages.__name__}


def named(each: Any) -> str:
    return each.behaviour if isinstance(each, Row) else each.__name__


@pytest.fixture(scope="module")
def kept_redis() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.fixture
def server(row: Row, request: pytest.FixtureRequest) -> RedisServer:
    """An empty server: one of its own for a probe that kills it."""
    found: RedisServer = request.getfixturevalue("own_redis" if row.probe in KILLERS else "kept_redis")
    found.cli("FLUSHALL")
    return found


@pytest.mark.parametrize("kind", OURS, ids=named)
@pytest.mark.parametrize("row", ROWS, ids=named)
async def test_ours_does_what_the_table_says(row: Row, kind: type[Adapter], server: RedisServer):
    asked = (row.needs is None or row.needs in kind.features) and not (kind is OursRedis and row.probe in HANDED_ON)

    verdict = await probe(row, kind, server, QUICK)

    assert verdict.answer == ("yes" if asked else "n/a"), verdict


class Naive(Adapter):
    """What one writes in five minutes: a dict, keyed by the text of the arguments."""

    name: ClassVar[str] = "naive"
    features = frozenset({Feature.ASYNC})

    def cached(self, function: Function, options: Options = PLAIN) -> Function:
        entries: dict[str, Any] = {}

        async def call(*args: Any, **kwargs: Any) -> Any:
            key = f"{':'.join(map(str, args))} {kwargs}"
            if entries.get(key) is None:
                entries[key] = await function(*args, **kwargs)
            return entries[key]

        call.entries = entries  # type: ignore[attr-defined]
        return call

    async def invalidate(self, function: Any, *args: object) -> None:
        function.entries.clear()


@pytest.mark.parametrize("row", [row for row in ROWS if row.needs is None], ids=named)
async def test_a_probe_says_no_of_a_naive_cache(row: Row, server: RedisServer):
    verdict = await probe(row, Naive, server, QUICK)

    assert verdict.answer == "no", verdict


async def test_a_library_without_the_feature_of_a_row_is_not_probed(own_redis: RedisServer):
    answers = {row.behaviour: (await probe(row, Naive, own_redis, QUICK)).answer for row in ROWS if row.needs}

    assert answers.pop("O(1) tags without clocks") == "no"
    assert answers.pop("cancelling the first caller leaves the other waiters alive") == "n/a", "nobody waits"
    assert set(answers.values()) == {"n/a"}
