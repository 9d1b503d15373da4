"""Every benchmark, one after another: ``make bench``."""

from benchmarks import append, bridge, cache_hit, context, records, redis_get, sessions_growth, sessions_write

for benchmark in (cache_hit, redis_get, append, sessions_write, sessions_growth, records, bridge, context):
    benchmark.run()
