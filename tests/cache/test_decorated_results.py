"""What a decorated function gives back: values, types, errors, and what is not cached."""

import asyncio
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import pytest
from pydantic import BaseModel

from agent_service.infrastructure.cache import (
    CacheInfo,
    cached,
    get_cache,
    get_redis_manager,
)

pytestmark = pytest.mark.usefixtures("anywhere")


class Color(Enum):
    RED = "red"


@dataclass
class Point:
    x: int
    tags: list[str] = field(default_factory=list)


class User(BaseModel):
    name: str
    favourite: Color = Color.RED
    friends: list["User"] = []


async def test_none_is_cached_only_when_asked():
    calls = []

    @cached()
    async def never() -> None:
        calls.append("never")

    @cached(cache_none=True)
    async def always() -> None:
        calls.append("always")

    for _ in range(2):
        await never()
        await always()

    assert calls == ["never", "always", "never"]


async def test_an_exception_passes_through_and_is_not_cached():
    calls = []

    @cached()
    async def f() -> None:
        calls.append(1)
        raise LookupError("nobody")

    for _ in range(2):
        with pytest.raises(LookupError, match="nobody"):
            await f()

    assert len(calls) == 2


async def test_each_caller_gets_a_value_of_its_own():
    @cached()
    async def f(n: int) -> list[int]:
        await asyncio.sleep(0.01)
        return [n]

    together = await asyncio.gather(*(f(1) for _ in range(10)))
    for each in together:
        each.append(99)
    again = await f(1)
    again.append(98)

    assert await f(1) == [1]


@pytest.mark.parametrize(
    "value",
    [Color.RED, Point(1, ["a"]), User(name="Ann", friends=[User(name="Bob")])],
    ids=["enum", "dataclass", "model"],
)
async def test_the_return_annotation_gives_the_type_back(value: Any):
    async def plain(n: int) -> Any:
        return value

    plain.__annotations__["return"] = type(value)
    f = cached()(plain)
    results = [await f(1) for _ in range(3)]

    assert results == [value] * 3
    assert all(type(each) is type(value) for each in results)
    if isinstance(value, Point):
        results[0].tags.append("b")
        assert await f(1) == Point(1, ["a"])


async def test_a_miss_gives_what_a_hit_gives():
    @cached()
    async def f() -> Any:
        return Point(1)

    assert await f() == await f() == {"x": 1, "tags": []}


async def test_a_result_that_cannot_be_written_down_is_handed_on_and_not_cached(caplog: pytest.LogCaptureFixture):
    calls = []

    @cached()
    async def f() -> object:
        calls.append(object())
        return calls[-1]

    results = [await f() for _ in range(3)]

    assert results == calls
    assert caplog.text.count("is not cached") == 1


async def test_reads_of_decorated_functions_are_counted():
    manager = await get_redis_manager()
    manager.metrics.reset()

    @cached(namespace="counted")
    async def f(n: int) -> int:
        return n

    for _ in range(4):
        await f(1)

    counts = manager.get_metrics()["metrics"]
    assert (counts["counted:hits"], counts["counted:misses"], counts["counted:loads"]) == (3, 1, 1)
    assert manager.get_hit_rate("counted") == 75.0
    assert counts["default:hits"] == counts["default:misses"] == 0


@pytest.mark.parametrize("arguments", [(), (1,), (object(),)], ids=["none", "scalar", "no scalar"])
async def test_a_result_that_never_fits_its_annotation_is_counted_as_a_miss(arguments: tuple[Any, ...]):
    manager = await get_redis_manager()
    manager.metrics.reset()
    calls = 0

    async def plain(*given: Any) -> Any:
        nonlocal calls
        calls += 1
        return Point(1)

    async def with_argument(n: Any) -> Any:
        return await plain(n)

    function: Any = with_argument if arguments else plain
    function.__annotations__["return"] = User
    f = cached(namespace="misfit", include_args=not arguments or isinstance(arguments[0], int))(function)

    for _ in range(10):
        await f(*arguments)

    counts = manager.get_metrics()["metrics"]
    assert calls == 10
    assert f.cache_info() == CacheInfo(hits=0, misses=10)
    assert (counts["misfit:hits"], counts["misfit:misses"], counts["misfit:sets"]) == (0, 10, 0)
    assert manager.get_hit_rate("misfit") == 0.0


async def test_an_entry_that_another_release_wrote_is_one_miss_and_then_hits():
    manager = await get_redis_manager()

    @cached(namespace="older")
    async def f(n: int) -> Point:
        return Point(n)

    cache = await get_cache("older")
    await cache.set(f.cache_key(1), {"another": "shape"})
    manager.metrics.reset()

    assert [await f(1), await f(1), await f(1)] == [Point(1)] * 3
    counts = manager.get_metrics()["metrics"]
    assert (counts["older:hits"], counts["older:misses"], counts["older:undecodable"]) == (2, 1, 1)
    assert f.cache_info() == CacheInfo(hits=2, misses=1)


async def test_a_result_that_is_not_what_its_annotation_says_is_handed_on_as_it_is(caplog: pytest.LogCaptureFixture):
    point = Point(1, ["a"])

    async def plain() -> Any:
        return point

    plain.__annotations__["return"] = User
    f = cached()(plain)

    assert await f() is point
    assert await f() is point
    assert caplog.text.count("return annotation") == 1
