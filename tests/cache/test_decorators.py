"""Decorating a function: what stays as it was, what is refused, and defaults."""

import contextvars
import inspect
from typing import Any

import pytest

from agent_service.core.errors import CacheKeyError, CacheValueError
from agent_service.infrastructure.cache import (
    NEVER,
    InMemoryCache,
    cache_invalidate,
    cached,
    get_cache,
)

pytestmark = pytest.mark.usefixtures("anywhere")

NOT_TEXT: Any = None


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
