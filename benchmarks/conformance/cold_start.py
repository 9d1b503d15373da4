"""One of several processes that want the same missing value at once: ``cold_start ADAPTER URL CALLERS``.

Says it is ready on a line of its own, waits for a line, lets the callers go, and says how many loads it made.
"""

import asyncio
import sys

from benchmarks.conformance.adapter import Options, Store
from benchmarks.conformance.libraries import library

__all__ = ["main"]


async def main(adapter: str, url: str, callers: int) -> None:
    loads = 0

    async def read(n: int) -> str:
        nonlocal loads
        loads += 1
        await asyncio.sleep(0.05)
        return f"value {n}"

    async with library(adapter)(url, Store.SERVER) as cache:
        cached = cache.cached(read, Options(one_process=True))
        print("ready", flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
        assert await asyncio.gather(*(cached(7) for _ in range(callers))) == ["value 7"] * callers
        print(loads, flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
