"""Snapshots are small, come back as they were, and name what is used most."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime

import orjson
import pytest

from agent_service.core import measured
from agent_service.core.errors import ConfigurationError, UndecodableError
from agent_service.core.histogram import Histogram
from agent_service.core.measured import Sample
from agent_service.core.metrics import CacheMetrics
from agent_service.integrations.metrics.catalogue import FAMILIES
from agent_service.integrations.metrics.most_used import LONGEST, MOST_NAMED, REST, MostUsed
from agent_service.integrations.metrics.reading import Buckets, read
from agent_service.integrations.metrics.snapshot import ProcessSnapshot, Snapshots


@pytest.fixture
def metrics(monkeypatch: pytest.MonkeyPatch) -> CacheMetrics:
    """The only metrics that this process has."""
    metrics = CacheMetrics()
    monkeypatch.setattr(measured, "_sources", {"redis": metrics.samples})
    return metrics


@pytest.fixture
def snapshot(metrics: CacheMetrics) -> ProcessSnapshot:
    metrics.namespace("users").hits += 3
    metrics.namespace("users").misses += 2
    metrics.namespace("posts").hits += 4
    for seconds in (0.002, 0.002, 0.002, 3.0):
        metrics.namespace("users").load_seconds.observe(seconds)
    return Snapshots().take()


def test_a_snapshot_comes_back_as_it_was(snapshot: ProcessSnapshot):
    again = ProcessSnapshot.from_json(snapshot.to_json())

    assert replace(again, readings={}) == replace(snapshot, readings={})
    assert again.process == f"{snapshot.host}:{snapshot.pid}"
    assert without_zeros(again) == without_zeros(snapshot)
    assert without_zeros(again)["cache_requests"] == {
        ("users", "hit"): 3, ("users", "miss"): 2, ("posts", "hit"): 4
    }  # fmt: skip


def without_zeros(snapshot: ProcessSnapshot) -> dict[str, dict[tuple[str, ...], float | Buckets]]:
    found = {
        name: {
            labels: value
            for labels, value in each.items()
            if (value.counts[-1] if isinstance(value, Buckets) else value)
        }
        for name, each in snapshot.readings.items()
    }
    return {name: each for name, each in found.items() if each}


def test_values_are_summed_over_the_labels_that_are_not_named(snapshot: ProcessSnapshot):
    assert snapshot.value("cache_requests") == 9
    assert snapshot.value("cache_requests", result="hit") == 7
    assert snapshot.value("cache_requests", namespace="users", result="hit") == 3
    assert snapshot.value("cache_load_duration_seconds") == 4
    assert snapshot.value("triggers_dead") == 0
    assert snapshot.label_values("cache_requests", "namespace") == ["default", "posts", "users"]
    assert snapshot.percentile("cache_load_duration_seconds", 50) == 0.0025
    assert snapshot.percentile("cache_load_duration_seconds", 99) == 5.0
    assert snapshot.percentile("writer_batch_size", 99) == 0.0


@pytest.mark.parametrize(("ask", "message"), [
    (lambda s: s.value("no_such"), "no metric 'no_such'"),
    (lambda s: s.value("cache_requests", tenant="a"), "no label 'tenant'; it has namespace, result"),
    (lambda s: s.label_values("triggers_dead", "tenant"), "it has none"),
    (lambda s: s.percentile("cache_requests", 50), "no histogram"),
])  # fmt: skip
def test_what_the_catalogue_does_not_have_is_refused_by_name(snapshot: ProcessSnapshot, ask, message: str):
    with pytest.raises(ConfigurationError, match=message):
        ask(snapshot)


ABOUT = b'{"format":1,"process":"a","host":"a","pid":1,"started_at":0,"taken_at":0,"version":"1","words":[],'


@pytest.mark.parametrize(
    "data",
    [
        b"", b"[]", b"null", b"{}", b'{"format": 2}', b'{"format": 1}', b"\xff", b"9" * 1000, b'{"format": [1]}',
        ABOUT.replace(b'"pid":1', b'"pid":"x"') + b'"readings":{}}',
        ABOUT.replace(b'"started_at":0', b'"started_at":1e99') + b'"readings":{}}',
        ABOUT + b'"readings":[]}',
        ABOUT + b'"readings":{"writer_batch_size":[[[1,2]]]}}',
        ABOUT + b'"readings":{"cache_sets":[[7,1]]}}',
        ABOUT + b'"readings":{"triggers_dead":[["many"]]}}',
    ],
)  # fmt: skip
def test_what_is_no_snapshot_is_refused(data: bytes):
    with pytest.raises(UndecodableError):
        ProcessSnapshot.from_json(data)


def test_a_family_of_another_version_is_left_out(snapshot: ProcessSnapshot):
    data = orjson.loads(snapshot.to_json())
    data["readings"]["of_the_future"] = [["a", 1]]
    data["readings"]["cache_sets"] = [[0, 0, 1]]

    again = ProcessSnapshot.from_json(orjson.dumps(data))

    assert "of_the_future" not in again.readings
    assert again.value("cache_sets") == 0


def test_ten_thousand_namespaces_take_64_kib_at_most_and_lose_no_count(metrics: CacheMetrics):
    snapshots = Snapshots()
    for number in range(10_000):
        counters = metrics.namespace("\U0001f600" * (LONGEST - 5) + f"{number:05}")
        for name in ("hits", "misses", "sets", "deletes", "loads", "errors", "refreshes", "undecodable"):
            setattr(counters, name, number * 1_000_003)
        counters.load_seconds.observe(number / 1000)

    snapshot = snapshots.take()

    assert len(snapshot.to_json()) <= 64 * 1024
    assert len(snapshot.label_values("cache_requests", "namespace")) == MOST_NAMED + 1
    assert snapshot.value("cache_requests", result="hit") == sum(number * 1_000_003 for number in range(10_000))
    assert snapshot.value("cache_load_duration_seconds") == 10_000
    assert snapshot.value("cache_requests", namespace="\U0001f600" * (LONGEST - 5) + "09999") > 0


def test_names_that_were_shown_stay_so_that_no_counter_falls(metrics: CacheMetrics):
    most_used = MostUsed()
    for number in range(MOST_NAMED * 2):
        metrics.namespace(f"n{number}").hits = number + 1
    first = most_used.bounded(read())
    for number in range(MOST_NAMED * 3):
        metrics.namespace(f"n{number}").hits += 1000 - number
    second = most_used.bounded(read())

    assert (REST, "hit") in first["cache_requests"]
    assert first["cache_requests"].keys() == second["cache_requests"].keys()
    for labels, value in first["cache_requests"].items():
        assert second["cache_requests"][labels] >= value  # type: ignore[operator]


def test_long_names_are_summed_up(metrics: CacheMetrics):
    metrics.namespace("x" * (LONGEST + 1)).hits += 7

    snapshot = Snapshots().take()

    assert snapshot.value("cache_requests", namespace=REST, result="hit") == 7


def test_only_labels_that_code_chooses_are_summed_up(monkeypatch: pytest.MonkeyPatch):
    def samples() -> Iterator[Sample]:
        for number in range(MOST_NAMED + 10):
            yield Sample("store_operation_duration_seconds", Histogram(), (f"Store{number}",))
        yield Sample("cache_breaker", 1, ("open",))

    monkeypatch.setattr(measured, "_sources", {"all": samples})

    snapshot = Snapshots().take()

    assert len(snapshot.label_values("store_operation_duration_seconds", "store")) == MOST_NAMED + 1
    assert snapshot.value("cache_breaker", state="open") == 1


def test_times_are_utc(snapshot: ProcessSnapshot):
    assert snapshot.started_at <= snapshot.taken_at <= datetime.now(UTC)
    assert FAMILIES.keys() >= snapshot.readings.keys()
