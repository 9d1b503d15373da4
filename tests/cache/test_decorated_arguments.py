"""Which calls of a decorated function are one call: arguments, keys, functions and methods."""

import contextvars
from typing import Any

import pytest

from agent_service.core.errors import CacheKeyError
from agent_service.infrastructure.cache import (
    CacheInfo,
    cache_invalidate,
    cached,
)

pytestmark = pytest.mark.usefixtures("anywhere")


async def test_a_result_is_cached_by_its_arguments():
    calls = []

    @cached(ttl=300, key_prefix="users")
    async def get_user(user_id: str) -> dict[str, str]:
        calls.append(user_id)
        return {"id": user_id}

    assert await get_user("1") == {"id": "1"}
    assert await get_user("1") == {"id": "1"}
    assert await get_user("2") == {"id": "2"}
    assert calls == ["1", "2"]
    assert get_user.cache_info() == CacheInfo(hits=1, misses=2)


async def test_positional_keyword_and_default_are_one_call():
    calls = []

    @cached()
    async def f(a: int, b: int = 2, *, c: int = 3) -> int:
        calls.append((a, b, c))
        return 0

    await f(1)
    await f(a=1)
    await f(1, 2)
    await f(1, b=2, c=3)
    await f(b=2, a=1)

    assert calls == [(1, 2, 3)]


async def test_arguments_of_different_types_are_different_calls():
    calls: list[Any] = []

    @cached()
    async def f(a: Any) -> int:
        calls.append(a)
        return len(calls)

    values: list[Any] = [1, True, "1", 1.0, b"1", None, "None", (1,), [1], "(1,)", {"a": 1}, {"a": True}, 0.0, -0.0, ""]
    first = [await f(each) for each in values]
    second = [await f(each) for each in values]

    assert first == second == list(range(1, len(values) + 1))


async def test_one_entry_whatever_the_arguments():
    calls = []

    @cached(include_args=False)
    async def f(a: object) -> int:
        calls.append(a)
        return 1

    await f(object())
    await f(object())

    assert len(calls) == 1


async def test_rendered_keys_are_readable_and_cannot_be_confused():
    calls = []

    @cached(key_prefix="users", key="{user_id}")
    async def get_profile(db: object, user_id: str) -> str:
        calls.append(user_id)
        return user_id

    assert get_profile.cache_key(object(), "7") == "users:get_profile:7"
    await get_profile(object(), "a:b*")
    await get_profile(object(), "a:b*")
    assert calls == ["a:b*"]

    @cache_invalidate("users:get_profile:{user_id}")
    async def update(user_id: str) -> None: ...

    await update("a:b*")
    await get_profile(object(), "a:b*")
    assert calls == ["a:b*", "a:b*"]


async def test_two_functions_with_the_same_rendered_keys_are_refused():
    def make(module: str) -> Any:
        async def get(user_id: str) -> str:
            return user_id

        get.__module__ = module
        return get

    cached(key_prefix="twice", key="{user_id}")(make("one"))
    with pytest.raises(CacheKeyError, match="key_prefix"):
        cached(key_prefix="twice", key="{user_id}")(make("two"))


async def test_a_key_function_is_asked_at_every_call():
    tenant = contextvars.ContextVar("tenant", default="a")

    @cached(key_prefix="tenants", key=lambda n: f"{tenant.get()}:{n}")
    async def get(n: int) -> str:
        return tenant.get()

    await get(1)
    tenant.set("b")

    assert get.cache_key(1) == "tenants:get:b:1"
    assert get.cache_info().hits == 0


async def test_ignored_parameters_do_not_tell_calls_apart():
    calls = []

    @cached(ignore=("db",))
    async def f(db: object, n: int) -> int:
        calls.append(n)
        return n

    await f(object(), 1)
    await f(object(), 1)

    assert calls == [1]


async def test_an_argument_without_identity_is_refused_by_name():
    class Service:
        @cached()
        async def get(self, n: int) -> int:
            return n

    @cached()
    async def f(db: object) -> int:
        return 1

    with pytest.raises(CacheKeyError, match=r"'?db'?.*ignore"):
        await f(object())
    with pytest.raises(CacheKeyError, match=r"self.*__cache_key__"):
        await Service().get(1)


async def test_methods_are_cached_by_the_key_of_their_instance():
    class Service:
        def __init__(self, name: str) -> None:
            self.name = name

        def __cache_key__(self) -> str:
            return self.name

        @cached(key_prefix="svc")
        async def get(self, n: int) -> str:
            return f"{self.name}{n}"

        @classmethod
        @cached(key_prefix="svc")
        async def of_class(cls, n: int) -> str:
            return f"{cls.__name__}{n}"

        @staticmethod
        @cached(key_prefix="svc")
        async def of_nobody(n: int) -> int:
            return n

    class Child(Service):
        pass

    a, b = Service("a"), Service("b")
    of_classes: list[Any] = [Service.of_class, Child.of_class]  # mypy binds no decorated classmethod

    assert [await a.get(1), await b.get(1), await Service("a").get(1)] == ["a1", "b1", "a1"]
    assert Service.get.cache_info() == CacheInfo(hits=1, misses=2)
    assert await Service.get.invalidate(a, 1) is True
    assert [await each(1) for each in of_classes] == ["Service1", "Child1"]
    assert await Service.of_nobody(1) == 1


async def test_functions_of_the_same_name_never_share_an_entry():
    def make(answer: int, name: str) -> Any:
        async def f(n: int) -> int:
            return answer

        f.__qualname__ = name
        return cached()(f)

    one, two = make(1, "one.f"), make(2, "two.f")

    assert [await one(0), await two(0), await one(0)] == [1, 2, 1]
