"""``@cached`` and ``@cache_invalidate``."""

import asyncio
import contextvars
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import pytest
from pydantic import BaseModel

from agent_service.core.errors import CacheKeyError, CacheValueError
from agent_service.core.settings import reset_settings
from agent_service.infrastructure.cache import (
    NEVER,
    CacheInfo,
    InMemoryCache,
    cache_invalidate,
    cached,
    close_cache,
    get_cache,
    get_redis_manager,
)
from agent_service.testing.clock import FakeClock


@pytest.fixture(params=["memory", "redis"])
async def anywhere(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[str]:
    """The settings of a service with and without Redis."""
    if request.param == "redis":
        monkeypatch.setenv("REDIS_URL", request.getfixturevalue("redis_url"))
        monkeypatch.setenv("REDIS_TIMEOUT", "5")
        reset_settings()
    yield request.param
    await close_cache()


pytestmark = pytest.mark.usefixtures("anywhere")


NOT_TEXT: Any = None


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


@pytest.mark.parametrize(
    "function_source",
    [
        "async def f(a, /, b, *, c): ...",
        "async def f(a=1, /, b=2, *, c=3): ...",
        "async def f(*, c): ...",
        "async def f(*args, **kwargs): ...",
        "async def f(a, *args, b=1): ...",
        "async def f(): ...",
    ],
)
async def test_the_signature_and_the_name_stay(function_source: str):
    scope: dict[str, Any] = {"__name__": __name__}
    exec(function_source, scope)
    plain = scope["f"]
    plain.__doc__ = "What it does."
    wrapped = cached()(plain)

    assert inspect.signature(wrapped) == inspect.signature(plain)
    assert inspect.iscoroutinefunction(wrapped)
    assert wrapped.__name__ == "f"
    assert wrapped.__doc__ == "What it does."
    assert wrapped.__wrapped__ is plain


async def test_wrong_arguments_raise_as_the_function_itself_would():
    @cached()
    async def f(a: int) -> int:
        return a

    with pytest.raises(TypeError, match="f"):
        await f()  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        await f(1, b=2)  # type: ignore[call-arg]


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


async def test_one_entry_whatever_the_arguments():
    calls = []

    @cached(include_args=False)
    async def f(a: object) -> int:
        calls.append(a)
        return 1

    await f(object())
    await f(object())

    assert len(calls) == 1


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


async def test_fifty_concurrent_cold_calls_make_one_load():
    calls = []

    @cached()
    async def f(n: int) -> int:
        calls.append(n)
        await asyncio.sleep(0.02)
        return n

    assert await asyncio.gather(*(f(1) for _ in range(50))) == [1] * 50
    assert calls == [1]


async def test_invalidate_refresh_and_cache_key():
    calls = []

    @cached(key_prefix="p")
    async def f(n: int, m: int = 2) -> int:
        calls.append(n)
        return len(calls)

    assert await f(1) == 1
    assert f.cache_key(1) == f.cache_key(n=1, m=2)
    assert f.cache_key(1).startswith("p:f:")
    assert await f.refresh(1) == 2
    assert await f(1) == 2
    assert await f.invalidate(1) is True
    assert await f.invalidate(1) is False
    assert await f(1) == 3
    cache = await get_cache()
    assert await cache.get(f.cache_key(1)) == 3


async def test_a_refresh_overtakes_a_load_that_began_before():
    started = asyncio.Event()
    finish = asyncio.Event()
    answers = ["old", "new"]

    @cached()
    async def f() -> str:
        answer = answers.pop(0)
        if answer == "old":
            started.set()
            await finish.wait()
        return answer

    early = asyncio.create_task(f())
    await started.wait()
    assert await f.refresh() == "new"
    finish.set()

    assert await early == "old"
    assert await f() == "new"


async def test_the_pattern_of_the_documents_invalidates_one_function():
    calls = []

    @cached(key_prefix="users")
    async def get_user(user_id: str) -> str:
        calls.append(user_id)
        return user_id

    @cached(key_prefix="users")
    async def get_name(user_id: str) -> str:
        calls.append("name")
        return user_id

    @cache_invalidate(key_pattern="users:get_user:*")
    async def update_user(user_id: str) -> str:
        return "done"

    await get_user("1")
    await get_name("1")
    assert await update_user("1") == "done"
    await get_user("1")
    await get_name("1")

    assert calls == ["1", "name", "1"]


async def test_a_failed_mutation_invalidates_nothing():
    cache = await get_cache()
    await cache.set("users:1", "kept")

    @cache_invalidate("users:*")
    async def update() -> None:
        raise RuntimeError("rolled back")

    with pytest.raises(RuntimeError):
        await update()
    assert await cache.get("users:1") == "kept"


async def test_fields_of_a_pattern_are_filled_in_and_match_only_themselves():
    cache = await get_cache("ns")
    await cache.set_many({"users:*:a": 1, "users:1:a": 1, "users:2:a": 1, "key:*": 1, "key:1": 1})

    @cache_invalidate("users:{user_id}:*", "ns", keys=["key:{user_id}"])
    async def update(user_id: str) -> None: ...

    await update("*")
    assert {key async for key in cache.scan()} == {"users:1:a", "users:2:a", "key:1"}
    await update("1")
    assert {key async for key in cache.scan()} == {"users:2:a"}


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


async def test_the_function_does_not_see_the_context_of_whoever_called_first():
    user: contextvars.ContextVar[str] = contextvars.ContextVar("user", default="nobody")
    user.set("alice")

    @cached()
    async def leaky(n: int) -> str:
        return user.get()

    @cached(context=[user])
    async def declared(n: int) -> str:
        return user.get()

    assert await leaky(1) == "nobody"
    assert await declared(1) == "alice"


@pytest.mark.parametrize("decorator", [cached(), cache_invalidate("*")])
async def test_only_async_functions_can_be_decorated(decorator: Any):
    def plain() -> None: ...

    with pytest.raises(TypeError, match="async def"):
        decorator(plain)
    with pytest.raises(TypeError, match=r"async def|below @classmethod"):
        decorator(classmethod(plain))  # type: ignore[arg-type]


async def test_unusable_parameters_are_refused_where_they_are_written():
    async def f(a: int) -> int:
        return a

    with pytest.raises(CacheValueError, match="ttl"):
        cached(ttl=float("nan"))
    with pytest.raises(TypeError, match="parentheses"):
        cached(f)  # type: ignore[arg-type]
    with pytest.raises(CacheKeyError, match="nobody"):
        cached(ignore=("nobody",))(f)
    with pytest.raises(CacheKeyError, match="nobody"):
        cached(key="{nobody}")(f)
    with pytest.raises(CacheKeyError, match="nobody"):
        cache_invalidate("users:{nobody}")(f)


async def test_the_default_ttl_comes_from_the_settings():
    @cached()
    async def default() -> int:
        return 1

    @cached(ttl=NEVER)
    async def forever() -> int:
        return 1

    @cached(ttl=0)
    async def nothing() -> int:
        return 1

    await default()
    await forever()
    await nothing()
    cache = await get_cache("default")
    left = await cache.ttl(default.cache_key())

    assert isinstance(left, float)
    assert 290 < left <= 300
    assert await cache.ttl(forever.cache_key()) is NEVER
    assert await cache.exists(nothing.cache_key()) is False


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


async def test_an_invalidation_goes_on_when_its_caller_is_cancelled():
    cache = await get_cache("cancelled")
    await cache.set("a", 1)
    task: asyncio.Task[None]

    @cache_invalidate("*", "cancelled")
    async def update() -> None:
        loop = asyncio.get_running_loop()
        loop.call_soon(lambda: loop.call_soon(task.cancel))  # when the invalidation has just begun

    task = asyncio.create_task(update())
    await asyncio.gather(task, return_exceptions=True)
    async with asyncio.timeout(5):
        while await cache.exists("a"):
            await asyncio.sleep(0.01)


async def test_the_short_way_to_memory_sees_every_change():
    """The compiled wrapper keeps entries by argument; each way an entry can go must be seen by it."""
    clock = FakeClock()
    cache: InMemoryCache[Any] = InMemoryCache(3, clock=clock)
    answer = 0

    @cached(cache=cache, ttl=10)
    async def f(n: int) -> int:
        return answer

    async def warm() -> None:
        await f(1)
        before = cache.counters.hits
        await f(1)
        assert cache.counters.hits == before + 1

    key = f.cache_key(1)
    changes: list[Callable[[], Awaitable[object]]] = [
        lambda: cache.delete(key),
        lambda: cache.delete_pattern("*"),
        cache.clear,
        lambda: cache.expire(key, 0),
        lambda: cache.set(key, 5),
        lambda: cache.set_many({"x": 1, "y": 2, "z": 3}),
    ]
    for number, change in enumerate(changes, start=1):
        await warm()
        answer = number
        await change()
        assert await f(1) == number
    await warm()
    answer = 99
    clock.advance(10)
    assert await f(1) == 99


async def test_a_hit_on_the_short_way_keeps_an_entry_from_being_evicted():
    cache: InMemoryCache[Any] = InMemoryCache(2)

    @cached(cache=cache)
    async def f(n: int) -> int:
        return n

    await f(1)
    await f(2)
    await f(1)
    await f(3)

    assert await cache.exists(f.cache_key(1))
    assert not await cache.exists(f.cache_key(2))


async def test_the_short_way_does_not_grow_without_bound():
    cache: InMemoryCache[Any] = InMemoryCache(10)

    @cached(cache=cache)
    async def f(n: int) -> int:
        return n

    for n in range(1000):
        await f(n)

    aliases = inspect.getclosurevars(f).nonlocals["__aliases"]
    assert len(aliases) <= 20


async def test_a_result_that_is_not_what_its_annotation_says_is_handed_on_as_it_is(caplog: pytest.LogCaptureFixture):
    point = Point(1, ["a"])

    async def plain() -> Any:
        return point

    plain.__annotations__["return"] = User
    f = cached()(plain)

    assert await f() is point
    assert await f() is point
    assert caplog.text.count("return annotation") == 1


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: cached(key_prefix=NOT_TEXT), "key_prefix"),
        (lambda: cached(key_prefix="\ud800"), "surrogate"),
        (lambda: cached(namespace=NOT_TEXT), "namespace"),
        (lambda: cached(ignore="a"), "ignore"),
    ],
)
async def test_an_unusable_name_is_refused_at_decoration(make: Any, message: str):
    async def f(a: int) -> int:
        return a

    with pytest.raises(CacheKeyError, match=message):
        make()(f)


async def test_a_key_of_its_own_that_cannot_be_used_is_refused_and_nothing_is_called():
    calls = []

    @cached(key_prefix="own", key="{name}")
    async def rendered(name: str) -> None:
        calls.append(name)

    @cached(key_prefix="own", key=len)  # type: ignore[arg-type]
    async def made(name: str) -> None:
        calls.append(name)

    with pytest.raises(CacheKeyError, match="8192"):
        await rendered("x" * 9000)
    with pytest.raises(CacheKeyError, match="must return a str"):
        await made("a")
    assert calls == []


def test_several_keys_are_wanted_not_one():
    with pytest.raises(CacheKeyError, match="keys="):
        cache_invalidate(keys="user:{user_id}")


@pytest.mark.parametrize("bounds", [{"max_entries": 0}, {"max_entries": "5"}, {"max_bytes": 0}, {"max_bytes": 1.5}])
def test_a_bound_below_one_is_refused(bounds: dict[str, Any]):
    with pytest.raises(CacheValueError, match=next(iter(bounds))):
        InMemoryCache(**bounds)
