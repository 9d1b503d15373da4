"""LangChain's cache of model answers on the caches of this package."""

import logging
from collections.abc import Sequence
from hashlib import blake2b
from typing import Any, Final

from langchain_core.caches import BaseCache
from langchain_core.messages import message_to_dict, messages_from_dict
from langchain_core.outputs import ChatGeneration, Generation

from agent_service.core.errors import CacheSerializationError, ConfigurationError
from agent_service.core.ttl import TTL
from agent_service.infrastructure.cache.factory import close_cache, get_cache
from agent_service.infrastructure.cache.interface import ICache
from agent_service.infrastructure.database.values.documents import dumps
from agent_service.integrations.langgraph.loops import HomeLoop

__all__ = ["AgentServiceLLMCache"]

logger = logging.getLogger("agent_service.cache")

_NAMESPACE: Final = "llm"


class AgentServiceLLMCache(BaseCache):
    """Answers of models, by the whole prompt and all settings of the model, in Redis or in memory.

    ::

        set_llm_cache(AgentServiceLLMCache(ttl=3600))

    An outage costs hits, never an error. Answers are kept as plain data, so reading one makes messages and
    generations and nothing else; what is neither is not kept. Methods without ``a`` work in threads, and in programs
    without an event loop; on the thread of a running loop they are refused (``BridgeError``).

    :param cache: a cache of the loop it is used on; None: that of the settings, one for each loop.
    :param namespace: of the cache of the settings; clearing clears the whole namespace.
    :param ttl: how long an answer is kept; None: the cache's default.
    :raises ConfigurationError: an option cannot be used.
    """

    def __init__(
        self, cache: ICache[Any] | None = None, *, namespace: str = _NAMESPACE, ttl: TTL | None = None
    ) -> None:
        if cache is not None and not isinstance(cache, ICache):
            raise ConfigurationError(f"cache must be an ICache or None, got {type(cache).__name__}")
        self._given = cache
        self._namespace = namespace
        self._ttl = ttl
        self._home = HomeLoop(bound=cache is not None)

    async def alookup(self, prompt: str, llm_string: str) -> Sequence[Generation] | None:
        """Return the answer to a prompt, or None."""
        key = _key(prompt, llm_string)
        return await self._home.run(lambda: self._lookup(key))

    async def aupdate(self, prompt: str, llm_string: str, return_val: Sequence[Generation]) -> None:
        """Keep the answer to a prompt."""
        if all(type(each) in {Generation, ChatGeneration} for each in return_val):
            key, stored = _key(prompt, llm_string), [_plain(each) for each in return_val]
            await self._home.run(lambda: self._update(key, stored))

    async def aclear(self, **_: Any) -> None:
        """Remove every answer of the namespace."""
        await self._home.run(self._clear)

    def lookup(self, prompt: str, llm_string: str) -> Sequence[Generation] | None:
        """Do what :meth:`alookup` does, from a thread without a running event loop.

        :raises BridgeError: called on the thread of a running event loop.
        """
        return self._home.wait(lambda: self.alookup(prompt, llm_string))

    def update(self, prompt: str, llm_string: str, return_val: Sequence[Generation]) -> None:
        """Do what :meth:`aupdate` does, from a thread without a running event loop.

        :raises BridgeError: called on the thread of a running event loop.
        """
        self._home.wait(lambda: self.aupdate(prompt, llm_string, return_val))

    def clear(self, **_: Any) -> None:
        """Do what :meth:`aclear` does, from a thread without a running event loop.

        :raises BridgeError: called on the thread of a running event loop.
        """
        self._home.wait(self.aclear)

    def close(self) -> None:
        """Close the connections that synchronous calls opened on a loop of the process's own.

        :raises BridgeError: called on the thread of a running event loop.
        """
        self._home.close_own(close_cache)

    async def _cache(self) -> ICache[Any]:
        return await get_cache(self._namespace) if self._given is None else self._given

    async def _lookup(self, key: str) -> list[Generation] | None:
        found = await (await self._cache()).get(key)
        try:
            return None if found is None else [_restored(each) for each in found]
        except Exception:  # noqa: BLE001 - what cannot be read is a miss
            return None

    async def _update(self, key: str, stored: list[dict[str, Any]]) -> None:
        try:
            await (await self._cache()).set(key, stored, self._ttl)
        except CacheSerializationError as exc:
            logger.warning("An answer of a model is not cached, because it holds something that is no data: %s", exc)

    async def _clear(self) -> None:
        await (await self._cache()).clear()


def _key(prompt: str, llm_string: str) -> str:
    """Return a digest of both; a prompt may be longer than any key."""
    return blake2b(dumps([prompt, llm_string]).encode("utf-8", "surrogatepass"), digest_size=32).hexdigest()


def _plain(generation: Generation) -> dict[str, Any]:
    answer: dict[str, Any] = {"info": generation.generation_info}
    if isinstance(generation, ChatGeneration):
        return {**answer, "message": message_to_dict(generation.message)}
    return {**answer, "text": generation.text}


def _restored(stored: dict[str, Any]) -> Generation:
    if "message" in stored:
        (message,) = messages_from_dict([stored["message"]])
        return ChatGeneration(message=message, generation_info=stored["info"])
    return Generation(text=stored["text"], generation_info=stored["info"])
