"""The options of a load are written once for ``@cached`` and ``get_or_load``."""

import inspect
from typing import get_type_hints

import pytest

from agent_service.core.errors import CacheValueError
from agent_service.infrastructure.cache import InMemoryCache, cached
from agent_service.infrastructure.cache.interface import LoadOptions
from agent_service.infrastructure.cache.loads.policy import OPTIONS, LoadPolicy, make_policy
from agent_service.testing.cache.room import giving


def test_every_option_is_checked_and_kept_by_its_name():
    assert {*OPTIONS} == {*get_type_hints(LoadOptions), "cache_none"}
    assert {*OPTIONS} <= {*LoadPolicy._fields}


def test_the_decorator_takes_every_option_and_has_the_defaults_of_a_load():
    parameters = inspect.signature(cached).parameters
    given = {name: parameters[name].default for name in OPTIONS if name != "tags"}

    assert make_policy(300, given) == make_policy(300, {"cache_none": False})


@pytest.mark.parametrize(
    "option",
    [
        {"lock": "local"},
        {"jitter": 1},
        {"refresh_at": 0},
        {"stale_for": -1},
        {"cache_if": 1},
        {"context": [1]},
        {"ttl": ""},
    ],
)
async def test_an_option_that_cannot_be_used_is_named_wherever_it_is_given(option: dict[str, object]):
    (name,) = option
    cache: InMemoryCache[int] = InMemoryCache()
    with pytest.raises(CacheValueError, match=name):
        cached(**option)  # type: ignore[arg-type] # which is what is tested
    with pytest.raises(CacheValueError, match=name):
        await cache.get_or_load("k", giving(1), **option)  # type: ignore[call-overload] # likewise
