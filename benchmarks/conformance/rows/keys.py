"""Which calls share an entry, and what an entry keeps to itself."""

import asyncio
from typing import Any

from benchmarks.conformance.adapter import Options
from benchmarks.conformance.stage import Stage
from benchmarks.conformance.verdict import Verdict, judge

__all__ = [
    "different_arguments",
    "mutated_result",
    "none_is_cached",
    "same_arguments_written_differently",
    "short_lived_instances",
]

DIFFERENT: tuple[tuple[tuple[Any, ...], tuple[Any, ...]], ...] = (
    ((1,), ("1",)),
    ((1,), (True,)),
    ((1,), (1.0,)),
    ((None,), ("",)),
    (("x",), (b"x",)),
    ((("x", "y"),), ("x:y",)),
    (("x y", "z"), ("x", "y z")),
    (("x:b:y", "z"), ("x", "y:b:z")),
)
"""Pairs of arguments of ``f(probe, a, b)`` that a function can tell apart."""

INSTANCES = 10


async def same_arguments_written_differently(stage: Stage) -> Verdict:
    """One call, written in four ways."""
    loads = 0

    async def read(a: int, b: int = 2) -> int:
        nonlocal loads
        loads += 1
        return a + b

    async with stage.open() as cache:
        cached = cache.cached(read)
        results = [await cached(1), await cached(a=1), await cached(1, 2), await cached(1, b=2)]
    assert results == [3] * 4
    return judge(loads == 1, f"{loads} load{'s' * (loads > 1)}")


async def short_lived_instances(stage: Stage) -> Verdict:
    """Methods of objects of which each is gone when the next comes, perhaps to the same address.

    Refusing an object that has no identity but its address is an answer, too.
    """
    wrong = refused = 0
    async with stage.open() as cache:

        class Service:
            def __init__(self, name: str) -> None:
                self.name = name

            @cache.cached
            async def get(self, n: int) -> str:  # noqa: ARG002 - it is part of the key
                return self.name

        for number in range(INSTANCES):
            service = Service(f"service {number}")
            try:
                wrong += await service.get(7) != service.name
            except TypeError:
                refused += 1
            del service
            await asyncio.sleep(0)
    figure = f"{refused} refused" if refused else f"{wrong} of {INSTANCES} wrong"
    return judge(not wrong, figure)


async def different_arguments(stage: Stage) -> Verdict:
    """Calls that differ, in pairs. Refusing one is an answer, too."""
    loads = 0

    async def read(probe: int, a: object, b: object = 0) -> int:  # noqa: ARG001 - they are the key
        nonlocal loads
        loads += 1
        return loads

    collided = 0
    async with stage.open() as cache:
        cached = cache.cached(read)
        for probe, (one, other) in enumerate(DIFFERENT):
            try:
                collided += await cached(probe, *one) == await cached(probe, *other)
            except TypeError:
                continue
    return judge(not collided, f"{collided} of {len(DIFFERENT)} clash")


async def none_is_cached(stage: Stage) -> Verdict:
    """A result of None, where the caller asked for it to be cached."""
    loads = 0

    async def read(n: int) -> None:  # noqa: ARG001
        nonlocal loads
        loads += 1

    async with stage.open() as cache:
        cached = cache.cached(read, Options(cache_none=True))
        for _ in range(3):
            assert await cached(7) is None
    return judge(loads == 1, f"{loads} load{'s' * (loads > 1)}")


async def mutated_result(stage: Stage) -> Verdict:
    """A caller changes the value he was given, by a load and by a hit."""
    plain = {"name": "Ann", "roles": ["admin"]}

    async def read(n: int) -> dict[str, Any]:  # noqa: ARG001
        return {"name": "Ann", "roles": ["admin"]}

    async with stage.open() as cache:
        cached = cache.cached(read)
        for _ in range(2):
            given = await cached(7)
            given["name"] = "Eve"
            given["roles"].append("guest")
        seen = await cached(7)
    return judge(seen == plain, "own copy" if seen == plain else "aliased")
