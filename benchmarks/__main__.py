"""Every benchmark, one after another: ``make bench``."""

from benchmarks import (
    append,
    bridge,
    cache_cost,
    cache_hit,
    context,
    fastapi_cost,
    first_use,
    http_cache,
    instrumented,
    openai_peers,
    rate_limits,
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
    openai_peers,
    first_use,
    http_cache,
    rate_limits,
    instrumented,
    records,
    bridge,
    context,
    fastapi_cost,
)

for benchmark in BENCHMARKS:
    benchmark.run()
