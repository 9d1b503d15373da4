"""Every benchmark, one after another: ``make bench``."""

from benchmarks import append, bridge, cache_hit, records, redis_get

for benchmark in (cache_hit, redis_get, append, records, bridge):
    benchmark.run()
