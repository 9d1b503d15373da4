"""``@cached`` and ``@cache_invalidate`` above functions that other decorators have changed."""

import functools
import inspect
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from agent_service import cache_invalidate, cached, close_cache
from agent_service.core.errors import CacheKeyError


@pytest.fixture(autouse=True)
async def closed() -> AsyncIterator[None]:
    yield
    await close_cache()


def inject_first(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    async def wrapper(*args: Any, **kwargs: Any) -> Any:
        return await function("db", *args, **kwargs)

    return wrapper


def inject_by_name(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    async def wrapper(*args: Any, **kwargs: Any) -> Any:
        return await function(*args, db="db", **kwargs)

    return wrapper


def inject_with_a_signature(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    async def wrapper(user_id: int, extra: int = 0) -> Any:
        return await function("db", user_id, extra)

    return wrapper


def inject_and_say_so(function: Callable[..., Any]) -> Callable[..., Any]:
    wrapper = inject_first(function)
    signature = inspect.signature(function)
    wrapper.__signature__ = signature.replace(parameters=list(signature.parameters.values())[1:])  # type: ignore[attr-defined]
    return wrapper


def pass_on(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    async def wrapper(*args: Any, **kwargs: Any) -> Any:
        return await function(*args, **kwargs)

    return wrapper


@pytest.mark.parametrize("inject", [inject_first, inject_with_a_signature, inject_and_say_so])
async def test_an_injected_argument_is_no_part_of_the_call(inject: Callable[[Any], Any]):
    calls: list[tuple[Any, ...]] = []

    @cached()
    @inject
    async def load(db: str, user_id: int, extra: int = 0) -> str:
        calls.append((db, user_id, extra))
        return f"{user_id}.{extra}"

    assert [await load(1), await load(2), await load(1, 5), await load(1)] == ["1.0", "2.0", "1.5", "1.0"]
    assert calls == [("db", 1, 0), ("db", 2, 0), ("db", 1, 5)]
    assert await load.invalidate(1) is True
    assert await load(1) == "1.0"
    assert len(calls) == 4


async def test_an_argument_injected_by_name_is_no_part_of_the_call():
    @cached()
    @inject_by_name
    async def load(user_id: int, *, db: str) -> str:
        return f"{db} {user_id}"

    assert [await load(1), await load(2), await load(user_id=1)] == ["db 1", "db 2", "db 1"]
    assert load.cache_key(1) == load.cache_key(user_id=1)


async def test_calls_through_an_injecting_wrapper_never_meet_however_many_defaults_there_are():
    @cached()
    @inject_first
    async def load(db: str = "", a: int = 1, b: int = 2) -> tuple[str, int, int]:
        return db, a, b

    calls: list[tuple[int, ...]] = [(), (1,), (2,), (1, 2), (2, 2), (2, 1)]

    for args in calls:
        assert await load(*args) == ("db", *args, *(1, 2)[len(args) :])
    for args in calls:
        assert await load(*args) == ("db", *args, *(1, 2)[len(args) :])


async def test_through_a_wrapper_that_passes_on_a_keyword_and_a_position_are_one_call():
    @cached()
    @pass_on
    async def load(user_id: int, extra: int = 0) -> int:
        return user_id

    assert load.cache_key(1, 2) == load.cache_key(1, extra=2) == load.cache_key(extra=2, user_id=1)
    assert load.cache_key(1) != load.cache_key("1")
    assert await load(1) == 1
    assert await load.invalidate(user_id=1) is True
    with pytest.raises(TypeError, match="nonsense"):
        await load(1, nonsense=2)


async def test_our_own_decorators_may_stand_in_any_order_with_templates():
    log: list[str] = []

    @cache_invalidate("list:{user_id}:*")
    @cache_invalidate(tags=["user:{user_id}"])
    @cached(key="{user_id}", tags=["user:{user_id}"], ignore=["db"])
    @cache_invalidate("other:{user_id}")
    async def change(user_id: int, db: object = None) -> int:
        log.append("called")
        return user_id

    assert [await change(1, object()), await change(1, object())] == [1, 1]
    assert log == ["called", "called"]  # the second decorator from above has invalidated what the third cached


async def test_a_signature_that_functools_copied_is_not_taken_for_the_wrapper_s():
    @cached()
    @inject_first
    @cache_invalidate("other:*")
    async def load(db: str, user_id: int) -> int:
        return user_id

    assert [await load(1), await load(2), await load(1)] == [1, 2, 1]


@pytest.mark.parametrize("options", [{"key": "{user_id}"}, {"tags": ["u:{user_id}"]}, {"ignore": ["user_id"]}])
def test_names_of_a_wrapped_function_are_refused_because_its_wrapper_may_have_shifted_them(options: dict[str, Any]):
    @inject_first
    async def load(db: str, user_id: int = 7) -> int:
        return user_id

    with pytest.raises(CacheKeyError, match=r"user_id.*decorate the function that it wraps"):
        cached(**options)(load)


def test_names_of_a_wrapped_function_are_refused_in_a_pattern():
    @inject_first
    async def load(db: str, user_id: int = 7) -> int:
        return user_id

    with pytest.raises(CacheKeyError, match=r"user_id.*decorate the function that it wraps"):
        cache_invalidate("load:{user_id}")(load)


@pytest.mark.parametrize("decorator", [cached(), cache_invalidate("*")])
def test_a_partial_is_refused_with_the_remedy(decorator: Any):
    async def load(db: str, user_id: int) -> int:
        return user_id

    class Callable:
        async def __call__(self) -> None: ...

    with pytest.raises(TypeError, match=r"async def.*partial of .*load"):
        decorator(functools.partial(load, "db"))
    with pytest.raises(TypeError, match="async def"):
        decorator(functools.partialmethod(load, "db"))
    with pytest.raises(TypeError, match="async def"):
        decorator(Callable())
    with pytest.raises(TypeError, match="async def"):
        decorator(lambda: None)
    with pytest.raises(TypeError, match="async def"):
        decorator(len)


def test_an_async_generator_is_refused():
    async def numbers() -> AsyncIterator[int]:
        yield 1

    decorate: Any = cached()

    with pytest.raises(TypeError, match="async def"):
        decorate(numbers)
