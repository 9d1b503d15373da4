"""The fence that one process keeps over any store."""

from collections.abc import Iterable

import pytest

from agent_service.context.fences.local import LocalFence
from agent_service.context.interface import Key
from agent_service.context.memory import InMemoryContextStore
from agent_service.core.errors import ContextStoreError


class Failing(InMemoryContextStore):
    """A store that cannot delete while it fails."""

    failing = False

    async def delete_many(self, keys: Iterable[Key]) -> int:
        if self.failing:
            raise ContextStoreError("it does not answer")
        return await super().delete_many(keys)


async def test_a_write_that_could_not_begin_is_under_way_no_more() -> None:
    store = Failing()
    fence = LocalFence(store)
    store.failing = True
    with pytest.raises(ContextStoreError):
        await fence.begin(["k"])
    store.failing = False

    token = await fence.lease(["k"])

    assert await fence.fill(token, ["k"], {"k": {"a": 1}}, 60.0) == 1
    assert await store.get("k") == {"a": 1}


async def test_of_writes_that_overlap_none_is_cached_and_no_load_from_before_them() -> None:
    store = InMemoryContextStore()
    fence = LocalFence(store)
    load = await fence.lease(["k"])
    first, second = await fence.begin(["k"]), await fence.begin(["k"])

    await fence.finish(first, ["k"], {"k": {"by": "first"}}, 60.0)
    await fence.finish(second, ["k"], {"k": {"by": "second"}}, 60.0)

    assert await fence.fill(load, ["k"], {"k": {"by": "load"}}, 60.0) == 0
    assert await store.get("k") is None


async def test_what_is_uncached_without_a_write_goes_and_takes_the_loads_along() -> None:
    store = InMemoryContextStore()
    fence = LocalFence(store)
    await store.set("k", {"from": "before"})
    load = await fence.lease(["k"])

    await fence.finish("", ["k"], {}, 60.0)

    assert await store.get("k") is None
    assert await fence.fill(load, ["k"], {"k": {"from": "before"}}, 60.0) == 0
    assert await store.get("k") is None
