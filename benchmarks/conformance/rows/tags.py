"""What invalidating a tag costs."""

import asyncio
import inspect
import sys
import time
from collections.abc import Awaitable
from types import FrameType
from typing import Any
from unittest.mock import patch

from benchmarks.conformance.adapter import Adapter, Feature, Options, Store
from benchmarks.conformance.server import commands, members
from benchmarks.conformance.stage import Stage
from benchmarks.conformance.verdict import Verdict, judge

__all__ = ["constant_cost_of_a_tag"]

HOUR = 3600.0
AT_ONCE = 50


async def constant_cost_of_a_tag(stage: Stage) -> Verdict:
    """A tag with few entries and one with many are invalidated; the work must be the same, and the effect complete.

    Work is commands for a cache in Redis, and bytecodes executed for one in memory. Entries are written by a process
    whose clock is an hour ahead, and no set of them may be kept.
    """
    store = Store.SERVER if stage.has(Feature.SERVER) else Store.OWN
    async with stage.open(store) as cache:
        few, kept_few, few_gone = await _invalidate(stage, cache, stage.sizes.few_entries)
        many, kept_many, many_gone = await _invalidate(stage, cache, stage.sizes.many_entries)
    if not (few_gone and many_gone):
        return judge(False, "still served")
    return judge(many <= few * 1.5 and kept_many <= kept_few, f"{few} -> {many}")


async def _invalidate(stage: Stage, cache: Adapter, entries: int) -> tuple[int, int, bool]:
    """Fill and invalidate a tag: work, members kept while it was full, whether no entry is served afterwards."""
    loads = 0

    async def read(group: int, number: int) -> str:
        nonlocal loads
        loads += 1
        return f"{group} {number}"

    cached = cache.cached(read, Options(tag="group:{group}"))
    real = time.time
    with patch("time.time", lambda: real() + HOUR):
        for start in range(0, entries, AT_ONCE):
            await asyncio.gather(*(cached(entries, each) for each in range(start, min(start + AT_ONCE, entries))))
    kept = members(stage.server)
    before = commands(stage.server)
    bytecodes = await _bytecodes(cache.invalidate_tag(f"group:{entries}"))
    work = commands(stage.server) - before if stage.has(Feature.SERVER) else bytecodes
    filled = loads
    sample = range(0, entries, max(1, entries // 10))
    for each in sample:
        await cached(entries, each)
    return work, kept, filled == entries and loads - filled == len(sample)


async def _bytecodes(work: Awaitable[Any]) -> int:
    """Await it; how many bytecodes that took in this thread."""
    executed = 0

    def trace(frame: FrameType, event: str, _arg: object) -> Any:
        nonlocal executed
        frame.f_trace_opcodes = True
        executed += event == "opcode"
        return trace

    here = inspect.currentframe()
    assert here is not None
    here.f_trace_opcodes = True  # before settrace: Python 3.12 reports bytecodes only where a frame asked for them then
    outer = sys.gettrace()
    sys.settrace(trace)
    try:
        await work
    finally:
        sys.settrace(outer)
    return executed
