"""Decorated methods, classmethods and staticmethods: what they offer is bound as their calls are."""

import asyncio
import functools
import inspect
import pickle
import sys
from collections.abc import AsyncIterator
from typing import Any

import pytest
from pydantic import BaseModel

from agent_service import cache_invalidate, cached, close_cache
from agent_service.infrastructure.cache import CacheInfo


@pytest.fixture(autouse=True)
async def closed() -> AsyncIterator[None]:
    yield
    await close_cache()


class Service:
    def __init__(self, name: str) -> None:
        self.name = name
        self.calls = 0

    def __cache_key__(self) -> str:
        return self.name

    @cached(key_prefix="m")
    async def price(self, item: str = "tea", vat: int = 0) -> str:
        self.calls += 1
        return f"{self.name} {item} {vat} {self.calls}"

    @classmethod
    @cached(key_prefix="m")
    async def below(cls, n: int = 1) -> str:
        return f"{cls.__name__} {n}"

    @cached(key_prefix="m")
    @classmethod
    async def above(cls, n: int = 1) -> str:
        return f"{cls.__name__} {n}"

    @staticmethod
    @cached(key_prefix="m")
    async def static_below(n: int = 1) -> int:
        return n

    @cached(key_prefix="m")
    @staticmethod
    async def static_above(n: int = 1) -> int:
        return n


class Child(Service):
    @cached(key_prefix="m")
    async def price(self, item: str = "tea", vat: int = 0) -> str:
        return "child of " + await super().price(item, vat)

    async def forget(self, item: str) -> bool:
        return await super().price.invalidate(item)


async def test_what_a_method_offers_is_bound_to_its_instance():
    a, b = Service("a"), Service("b")
    assert [await a.price(), await a.price("milk"), await b.price()] == ["a tea 0 1", "a milk 0 2", "b tea 0 1"]

    assert await a.price.invalidate("tea") is True
    assert [await a.price(), await a.price("milk"), await b.price()] == ["a tea 0 3", "a milk 0 2", "b tea 0 1"]
    assert await a.price.invalidate("water") is False

    assert await a.price.refresh(item="milk") == "a milk 0 4"
    assert await a.price("milk", 0) == "a milk 0 4"
    assert a.price.cache_key("tea") == a.price.cache_key() == Service.price.cache_key(a, item="tea", vat=0)
    assert a.price.cache_key("tea") != b.price.cache_key("tea")
    assert await Service.price.invalidate(b, "tea") is True
    assert a.price.cache_info() == Service.price.cache_info()


@pytest.mark.parametrize("name", ["below", "above"])
async def test_what_a_classmethod_offers_is_bound_to_the_class_it_is_reached_through(name: str):
    if name == "below" and sys.version_info >= (3, 13):
        with pytest.raises(TypeError, match="@cached above @classmethod"):
            getattr(Service, name).invalidate(1)
        return
    of_service, of_child, of_instance = getattr(Service, name), getattr(Child, name), getattr(Child("c"), name)
    assert [await of_service(), await of_child(1), await of_instance()] == ["Service 1", "Child 1", "Child 1"]

    assert await of_service.invalidate(1) is True
    assert await of_child.invalidate(n=1) is True
    assert await of_instance.invalidate() is False
    assert of_child.cache_key() == of_instance.cache_key(1) != of_service.cache_key()
    assert await of_child.refresh(2) == "Child 2"


@pytest.mark.parametrize("name", ["static_below", "static_above"])
async def test_what_a_staticmethod_offers_is_bound_to_nothing(name: str):
    for function in (getattr(Service, name), getattr(Service("a"), name)):
        assert await function(7) == 7
        assert await function.invalidate(7) is True
        assert function.cache_key() == function.cache_key(1)
        assert await function.refresh(7) == 7


async def test_an_overridden_method_and_the_one_it_extends_are_two():
    child = Child("c")
    assert await child.price("tea") == "child of c tea 0 1"

    assert await child.price.invalidate("tea") is True
    assert await child.price("tea") == "child of c tea 0 1"
    assert await child.forget("tea") is True
    assert await child.price.refresh("tea") == "child of c tea 0 2"


async def test_a_bound_method_of_an_object_is_told_from_that_of_another():
    class Plain:
        def __init__(self, name: str) -> None:
            self.name = name

        def __cache_key__(self) -> str:
            return self.name

        async def load(self, n: int) -> str:
            return f"{self.name}{n}"

    load_a, load_b = cached()(Plain("a").load), cached()(Plain("b").load)

    assert [await load_a(1), await load_b(1), await load_a(1)] == ["a1", "b1", "a1"]
    assert await load_a.invalidate(1) is True
    assert load_b.cache_info() == CacheInfo(0, 1)


async def test_a_bound_method_is_what_other_code_expects_of_one():
    service = Service("a")
    bound: Any = service.price

    assert bound == service.price != Service("a").price
    assert hash(bound) == hash(service.price)
    assert bound.__self__ is service
    assert (bound.__name__, bound.__qualname__) == ("price", "Service.price")
    assert list(inspect.signature(bound).parameters) == ["item", "vat"]
    assert list(inspect.signature(Service.price).parameters) == ["self", "item", "vat"]
    assert inspect.iscoroutinefunction(bound)
    assert inspect.iscoroutinefunction(Service.price)
    assert asyncio.iscoroutine(called := bound("milk"))
    assert await called == "a milk 0 1"
    assert await pickle.loads(pickle.dumps(bound))("milk") == "a milk 0 1"
    Service.alias = bound  # type: ignore[attr-defined]
    assert await Service("b").alias("milk") == "a milk 0 1"  # type: ignore[attr-defined]


async def test_further_decorators_may_stand_above_and_below():
    def loud(function: Any) -> Any:
        assert inspect.iscoroutinefunction(function)

        @functools.wraps(function)
        async def wrapper(*args: Any, **kwargs: Any) -> Any:
            return f"{await function(*args, **kwargs)}!"

        return wrapper

    class Shop:
        def __cache_key__(self) -> str:
            return "shop"

        @loud
        @cached()
        async def above(self, n: int) -> int:
            return n

        @cached()
        @loud
        async def below(self, n: int) -> int:
            return n

        @cache_invalidate("above:*")
        @cached()
        async def changing(self, n: int) -> int:
            return n

    shop = Shop()
    assert [await shop.above(1), await shop.below(1), await shop.changing(1)] == ["1!", "1!", 1]
    assert await shop.below.invalidate(1) is True


async def test_models_and_dataclasses_may_have_cached_methods():
    class Item(BaseModel):
        name: str

        @cached()
        async def price(self, vat: int = 0) -> str:
            return f"{self.name} {vat}"

    item = Item(name="tea")

    assert await item.price(7) == "tea 7"
    assert await item.price.invalidate(7) is True
    assert item.model_dump() == {"name": "tea"}
