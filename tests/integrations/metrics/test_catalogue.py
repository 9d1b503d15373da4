"""The catalogue names every metric that the package measures, as Prometheus wants names."""

import re

from agent_service.core import measured
from agent_service.core.histogram import SECONDS
from agent_service.infrastructure.cache.factory import close_cache, get_cache
from agent_service.infrastructure.database.connection import close_database, get_session
from agent_service.infrastructure.database.models.session import Session
from agent_service.infrastructure.database.repositories import SessionRepository
from agent_service.infrastructure.outbox import outbox_metrics
from agent_service.integrations.metrics.catalogue import FAMILIES
from agent_service.integrations.metrics.reading import Buckets, read
from agent_service.tenants.runner import TriggerRunner

PARTS = {"redis", "cache", "database", "appends", "cleanup", "outbox", "triggers", "stores"}


def test_every_part_reports_samples_of_the_catalogue_with_its_labels():
    assert callable(outbox_metrics)
    assert TriggerRunner is not None

    samples = measured.samples()

    assert measured._sources.keys() == PARTS
    for sample in samples:
        assert len(sample.labels) == len(FAMILIES[sample.name].labels), sample


def test_names_are_in_base_units_and_counters_alone_end_in_total():
    for family in FAMILIES.values():
        assert re.fullmatch(r"agent_service_[a-z0-9]+(_[a-z0-9]+)*", family.exposed)
        assert family.exposed.endswith("_total") == (family.kind == "counter")
        assert not re.search(r"_(ms|millis|minutes|kb|percent|ratio)(_|$)", family.exposed)
        assert not re.search(r"(user|session_id|tenant|key)$", " ".join(family.labels))
        assert family.help[0].isupper() or family.help[0].isdigit()
        assert family.help.endswith(".")
        assert ("seconds" in family.name) or family.kind != "histogram" or family.name == "writer_batch_size"
        assert set(family.bounds) <= set(SECONDS) or family.name == "writer_batch_size"


def test_known_labels_are_at_zero_before_anything_happened():
    readings = read()

    assert readings["triggers_dead"] == {(): 0.0}
    assert ("writer", "unavailable") in readings["session_appends"]
    assert set(readings["cache_breaker"]) == {("closed",), ("open",), ("half_open",), ("recovering",)}


async def test_what_happens_is_read():
    before = read()
    cache = await get_cache("read_here")
    await cache.set("a", 1)
    await cache.get("a")
    await cache.get("b")
    await cache.increment("c")
    async with get_session() as db:
        repository = SessionRepository(db)
        session = await repository.create(Session(user_id="ada"))
        await repository.add_message_to_session(session.id, {"role": "user", "content": "Hi"})
    after = read()
    await close_cache()
    await close_database()

    assert after["cache_requests"]["read_here", "hit"] == 1
    assert after["cache_requests"]["read_here", "miss"] == 1
    assert after["cache_increments"]["read_here",] == 1
    assert after["cache_entries"]["read_here",] == 2
    way = ("repository", "ok")
    assert after["session_appends"][way] == before["session_appends"][way] + 1  # type: ignore[operator]
    assert count(after["db_pool_wait_seconds"]["primary",]) > count(before["db_pool_wait_seconds"]["primary",])


def count(reading: float | Buckets) -> int:
    assert isinstance(reading, Buckets)
    return reading.counts[-1]
