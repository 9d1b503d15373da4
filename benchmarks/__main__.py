"""Every benchmark, one after another: ``make bench``."""

from benchmarks import (
    append,
    bridge,
    cache_cost,
    cache_hit,
    context,
    first_use,
    instrumented,
    records,
    redis_get,
    search,
    session_reads,
    sessions_growth,
    sessions_write,
)
from benchmarks.conformance import report as conformance

BENCHMARKS = (
    conformance,
    cache_hit,
    cache_cost,
    redis_get,
    append,
    sessions_write,
    sessions_growth,
    session_reads,
    search,
    first_use,
    instrumented,
    records,
    bridge,
    context,
)

for benchmark in BENCHMARKS:
    benchmark.run()
