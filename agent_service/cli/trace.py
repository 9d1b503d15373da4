"""Replaying a cache trace: every request is a read, a miss inserts. Nothing expires."""

import asyncio
import csv
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from agent_service.cli.reading import Lines, open_lines
from agent_service.core.errors import CacheKeyError
from agent_service.core.keys import check_key
from agent_service.core.ttl import NEVER
from agent_service.infrastructure.cache.interface import MISS, ICache
from agent_service.infrastructure.cache.memory.cache import InMemoryCache

__all__ = ["TraceReport", "read_keys", "replay_trace"]

COLUMNS = (["timestamp", "key"], ["timestamp", "key", "size"])
CHUNK = 4096


@dataclass(frozen=True, slots=True)
class TraceReport:
    """The result of a trace. ``seconds`` were spent in the cache, not on reading the file."""

    requests: int
    hits: int
    seconds: float

    @property
    def hit_ratio(self) -> float:
        """Hits per request, 0 to 1; 0.0 without requests."""
        return self.hits / self.requests if self.requests else 0.0

    @property
    def requests_per_second(self) -> float:
        """Requests per second of :attr:`seconds`."""
        return self.requests / self.seconds if self.seconds else 0.0


async def replay_trace(path: Path, entries: int, advance: Callable[[float], None]) -> TraceReport:
    """Send the requests of a trace through a memory cache, one after the other.

    :param path: CSV, plain or gzip, with the columns timestamp, key and, optionally, size.
    :param entries: how many entries the cache holds.
    :param advance: called with the fraction of the file that is done, 0 to 1.
    :raises InputFileError: for a file that is not such a trace.
    """
    cache: InMemoryCache[bool] = InMemoryCache(max_entries=entries, default_ttl=NEVER)
    requests, hits, seconds = 0, 0, 0.0
    with open_lines(path) as lines:
        keys = read_keys(lines)
        while chunk := list(islice(keys, CHUNK)):
            started = time.perf_counter()
            hits += await _serve(cache, chunk)
            seconds += time.perf_counter() - started
            requests += len(chunk)
            advance(lines.fraction)
            await asyncio.sleep(0)  # a memory cache never waits: here Ctrl-C gets its turn
    return TraceReport(requests, hits, seconds)


async def _serve(cache: ICache[bool], keys: Sequence[str]) -> int:
    hits = 0
    for key in keys:
        if await cache.lookup(key) is MISS:
            await cache.set(key, True)
        else:
            hits += 1
    return hits


def read_keys(lines: Lines) -> Iterator[str]:
    """Return the keys of a trace in the order of its requests.

    :raises InputFileError: for a wrong header, a row with another number of columns, or an unusable key.
    """
    try:
        rows = csv.reader(lines, strict=True)
        header = next(rows, [])
        if header not in COLUMNS:
            lines.line = 1
            raise lines.error(f"the header must be timestamp,key or timestamp,key,size, not {','.join(header)!r:.80}")
        for row in rows:
            if len(row) != len(header):
                raise lines.error(f"{len(row)} columns where the header has {len(header)}; correct the row")
            yield check_key(row[1])
    except csv.Error as exc:
        raise lines.error(f"not CSV ({exc}); correct the row") from exc
    except CacheKeyError as exc:
        raise lines.error(str(exc)) from exc
