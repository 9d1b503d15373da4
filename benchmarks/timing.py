"""How benchmarks measure: rounds that alternate between the candidates, medians of them, ratios to the first."""

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable, Mapping

__all__ = ["print_ratios", "seconds_per_call"]


async def seconds_per_call(
    candidates: Mapping[str, Callable[..., Awaitable[object]]],
    *args: object,
    calls: int,
    rounds: int = 7,
    between: Callable[[], Awaitable[object]] = lambda: asyncio.sleep(0),
) -> dict[str, float]:
    """Await each candidate with ``args`` ``calls`` times in each of ``rounds`` turns; median seconds of one call.

    Each turn begins with another candidate. What is done ``between`` them is not measured.
    """
    taken: dict[str, list[float]] = {name: [] for name in candidates}
    order = list(candidates.items())
    for _ in range(rounds):
        for name, function in order:
            started = time.perf_counter()
            for _ in range(calls):
                await function(*args)
            taken[name].append((time.perf_counter() - started) / calls)
            await between()
        order.append(order.pop(0))
    return {name: statistics.median(each) for name, each in taken.items()}


def print_ratios(title: str, seconds: Mapping[str, float]) -> None:
    """Print a table: time of one call, and its ratio to the first candidate."""
    first = next(iter(seconds.values()))
    print(f"\n{title}")
    for name, each in seconds.items():
        print(f"  {name:<42}{each * 1e9:>12,.0f} ns {each / first:>8.2f} x")
