"""LangChain's cache of model answers: the suites of langchain-tests, and what they do not ask."""

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from langchain_core.caches import BaseCache
from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import AIMessage
from langchain_core.outputs import ChatGeneration, Generation
from langchain_tests.integration_tests import AsyncCacheTestSuite, SyncCacheTestSuite

from agent_service.core.errors import BridgeError, ConfigurationError
from agent_service.core.settings import reset_settings
from agent_service.infrastructure.cache.factory import close_cache, get_cache
from agent_service.integrations.langgraph import AgentServiceLLMCache


@pytest.fixture(params=["memory", "redis"])
def place(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "redis":
        monkeypatch.setenv("REDIS_URL", request.getfixturevalue("redis_url"))
        reset_settings()


class TestAwaited(AsyncCacheTestSuite):
    @pytest.fixture
    async def cache(self, place: None) -> AsyncIterator[BaseCache]:
        yield AgentServiceLLMCache()
        await close_cache()


class TestSynchronous(SyncCacheTestSuite):
    @pytest.fixture
    def cache(self, place: None) -> Iterator[BaseCache]:
        made = AgentServiceLLMCache()
        yield made
        made.close()


async def test_a_chat_model_is_asked_once(place: None) -> None:
    cache = AgentServiceLLMCache(ttl=60)
    answers = iter([AIMessage("first", response_metadata={"n": 1}), AIMessage("second")])
    model = GenericFakeChatModel(messages=answers, cache=cache)

    first, again = [await model.ainvoke("hi") for _ in range(2)]

    assert (first.content, again.content, again.response_metadata) == ("first", "first", {"n": 1})
    assert (await model.ainvoke("other")).content == "second"
    await close_cache()


async def test_prompts_and_settings_are_told_apart(place: None) -> None:
    cache = AgentServiceLLMCache()
    await cache.aupdate("a", "b", [Generation(text="x")])
    await cache.aupdate("p" * 20_000, "s", [Generation(text="long")])

    assert await cache.alookup("ab", "") is None
    assert await cache.alookup("", "ab") is None
    assert await cache.alookup("p" * 20_000, "s") == [Generation(text="long")]
    await close_cache()


async def test_what_is_no_data_is_not_kept_and_what_cannot_be_read_is_a_miss(place: None) -> None:
    class Other(Generation):
        """A kind that others made."""

    cache = AgentServiceLLMCache()
    await cache.aupdate("p", "s", [Other(text="x")])
    await cache.aupdate("q", "s", [Generation(text="x", generation_info={"raw": object()})])
    await cache.aupdate("r", "s", [ChatGeneration(message=AIMessage("x"))])
    kept = await get_cache("llm")
    keys = [key async for key in kept.scan()]
    assert len(keys) == 1
    await kept.set(keys[0], ["nothing of ours"])

    for prompt in "pqr":
        assert await cache.alookup(prompt, "s") is None
    await close_cache()


async def test_on_the_loops_own_thread_plain_calls_are_refused() -> None:
    cache = AgentServiceLLMCache()

    for call in (lambda: cache.lookup("p", "s"), cache.clear):
        with pytest.raises(BridgeError):
            call()
    given: Any = {}
    with pytest.raises(ConfigurationError, match="ICache"):
        AgentServiceLLMCache(given)
