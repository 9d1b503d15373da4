"""Counters and histograms in the documented shapes."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_service.core.histogram import SECONDS, SHOWN_SECONDS, SIZES
from agent_service.core.living import Living
from agent_service.core.metrics import COUNTERS, CacheMetrics, Histogram
from agent_service.testing import FakeClock


def test_the_default_namespace_is_there_at_zero_from_the_start():
    snapshot = CacheMetrics().snapshot()

    assert snapshot["hit_rate"] == 0.0
    assert (snapshot["metrics"]["default:hits"], snapshot["metrics"]["default:misses"]) == (0, 0)
    assert set(snapshot["metrics"]) == {f"default:{name}" for name in (*COUNTERS, "l1_hits")}
    assert snapshot["latency"]["redis"]["count"] == 0


def test_a_namespace_has_one_set_of_counters_and_its_own_hit_rate():
    metrics = CacheMetrics()
    metrics.namespace("").hits += 3
    metrics.namespace("default").misses += 1
    metrics.namespace("users").misses += 4

    assert metrics.hit_rate() == metrics.hit_rate("") == 75.0
    assert metrics.hit_rate("users") == 0.0
    assert metrics.hit_rate("never used") == 0.0
    assert metrics.snapshot()["hit_rate"] == 37.5
    assert metrics.snapshot()["metrics"]["users:misses"] == 4


def test_asking_for_a_hit_rate_creates_no_namespace():
    metrics = CacheMetrics()
    metrics.hit_rate("asked")

    assert not any(name.startswith("asked") for name in metrics.snapshot()["metrics"])


def test_gauges_are_read_when_the_snapshot_is_taken():
    metrics, journal = CacheMetrics(), [1]
    metrics.add_gauge("journal_length", lambda: len(journal))
    journal.append(2)

    assert metrics.snapshot()["journal_length"] == 2


def test_uptime_is_measured_by_the_clock_given_and_survives_a_reset():
    clock = FakeClock()
    metrics = CacheMetrics(monotonic=clock.monotonic)
    counters = metrics.namespace("users")
    counters.hits += 1
    metrics.redis_latency.observe(0.01)
    first_reset = metrics.snapshot()["last_reset"]
    clock.advance(12.5)

    metrics.reset()

    snapshot = metrics.snapshot()
    assert snapshot["uptime_seconds"] == 12.5
    assert snapshot["last_reset"] > first_reset
    assert (counters.hits, metrics.redis_latency.count) == (0, 0)
    assert metrics.namespace("users") is counters


def test_an_empty_histogram_has_zero_percentiles():
    assert Histogram().snapshot() == {"count": 0, "mean_ms": 0.0, "p50_ms": 0.0, "p95_ms": 0.0, "p99_ms": 0.0}


@pytest.mark.parametrize("percent", [50, 95, 99, 100])
@given(observed=st.lists(st.floats(1e-5, 50), min_size=1, max_size=200))
def test_a_percentile_is_right_within_a_quarter(percent, observed):
    histogram = Histogram()
    for seconds in observed:
        histogram.observe(seconds)
    rank = -(-len(observed) * percent // 100)
    exact = sorted(observed)[max(rank, 1) - 1]

    assert exact <= histogram.percentile(percent) * (1 + 1e-9)
    assert histogram.percentile(percent) <= exact * 1.25 * (1 + 1e-9)


def test_durations_beyond_the_last_bucket_are_counted():
    histogram = Histogram()
    histogram.observe(0.0)
    histogram.observe(1e6)

    assert histogram.count == 2
    assert histogram.percentile(100) == histogram.bounds[-1]


def test_counts_below_bounds_are_cumulative_and_end_with_all():
    histogram = Histogram()
    for seconds in (0.0, 0.0001, 0.00011, 0.25, 0.26, 49.9, 1000.0):
        histogram.observe(seconds)

    below = dict(zip((*SHOWN_SECONDS, "all"), histogram.cumulative(SHOWN_SECONDS), strict=True))

    assert (below[0.0001], below[0.00025], below[0.1], below[0.25], below[0.5]) == (2, 3, 3, 4, 5)
    assert (below[25.0], below[50.0], below["all"]) == (5, 6, 7)
    assert histogram.total == pytest.approx(1050.41021)


@given(observed=st.lists(st.floats(0, 1000)))
def test_shown_buckets_count_what_they_say(observed):
    histogram = Histogram()
    for seconds in observed:
        histogram.observe(seconds)

    counts = histogram.cumulative(SHOWN_SECONDS)

    assert counts == [*(sum(each <= bound for each in observed) for bound in SHOWN_SECONDS), len(observed)]


def test_bounds_are_close_and_shown_ones_are_among_them():
    assert set(SHOWN_SECONDS) <= set(SECONDS)
    assert list(SECONDS) == sorted(SECONDS)
    assert max(after / before for before, after in pairwise(SECONDS)) <= 1.25 + 1e-9
    assert Histogram(SIZES).cumulative(SIZES) == [0] * (len(SIZES) + 1)


def test_what_is_shown_of_a_namespace_never_goes_back():
    counters = CacheMetrics().namespace("users")

    def shown() -> dict[tuple[str, ...], float]:
        return {each.labels: each.value for each in counters.samples("users") if each.name == "cache_requests"}  # type: ignore[misc]

    counters.misses += 2
    first = shown()
    counters.take_back(None)
    counters.stale += 1
    second = shown()
    counters.misses += 3
    third = shown()

    assert first["users", "miss"] == second["users", "miss"] == 2
    assert second["users", "stale"] == 1
    assert third["users", "miss"] == 3
    counters.reset()
    assert shown()["users", "miss"] == 0


def test_living_objects_are_held_as_long_as_somebody_else_keeps_them():
    class Thing:
        pass

    living: Living[Thing] = Living()
    first, second, third = Thing(), Thing(), Thing()
    for each in (first, second, third):
        living.add(each)
    del second, each
    living.discard(third)

    assert living.all() == [first]
    assert len(living._references) == 1
