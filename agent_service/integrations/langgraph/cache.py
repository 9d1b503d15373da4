"""LangGraph's cache of node results on the caches of this package."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, Generic, TypeVar

from langgraph.cache.base import BaseCache, FullKey, Namespace
from langgraph.checkpoint.serde.base import SerializerProtocol

from agent_service.core.errors import CacheKeyError, CacheSerializationError, CacheValueError, ConfigurationError
from agent_service.core.ttl import NEVER, TTL
from agent_service.infrastructure.cache.factory import close_cache, get_cache
from agent_service.infrastructure.cache.interface import ICache
from agent_service.infrastructure.database.values.documents import dumps
from agent_service.integrations.langgraph.loops import HomeLoop
from agent_service.integrations.langgraph.serializers import refuse_pickle

__all__ = ["AgentServiceCache"]

ValueT = TypeVar("ValueT")

_NAMESPACE: Final = "langgraph"


class AgentServiceCache(BaseCache[ValueT], Generic[ValueT]):
    """Results of nodes, in Redis or in memory, as the settings say; a Redis outage costs hits, never an error.

    ::

        graph = builder.compile(cache=AgentServiceCache())  # nodes with a CachePolicy

    Clearing a namespace is one command, however much it holds, and reaches every process. What cannot be decoded is a
    miss. Methods without ``a`` work in threads, and in programs without an event loop; on the thread of a running loop
    they are refused (``BridgeError``), because they would stop it.

    :param cache: a cache of the loop it is used on; None: that of the settings, one for each loop.
    :param namespace: of the cache of the settings.
    :param ttl: what entries without a time to live of their own get; None: the cache's default.
    :param serde: LangGraph's serializer of values; one that falls back to pickle is refused.
    :raises ConfigurationError: an option cannot be used.
    """

    def __init__(
        self,
        cache: ICache[Any] | None = None,
        *,
        namespace: str = _NAMESPACE,
        ttl: TTL | None = NEVER,
        serde: SerializerProtocol | None = None,
    ) -> None:
        super().__init__(serde=serde)
        refuse_pickle(self.serde)
        if cache is not None and not isinstance(cache, ICache):
            raise ConfigurationError(f"cache must be an ICache or None, got {type(cache).__name__}")
        self._given = cache
        self._namespace = namespace
        self._ttl = ttl
        self._home = HomeLoop(bound=cache is not None)

    async def aget(self, keys: Sequence[FullKey]) -> dict[FullKey, ValueT]:
        """Return the values that are there; one command for all.

        :raises CacheKeyError: a key cannot be used.
        """
        wanted = {_text(namespace, key): (tuple(namespace), key) for namespace, key in keys}
        return await self._home.run(lambda: self._get(wanted)) if wanted else {}

    async def aset(self, pairs: Mapping[FullKey, tuple[ValueT, int | None]]) -> None:
        """Store values for so many seconds; None: as ``ttl`` says. It is no error if the cache stores none.

        :raises CacheKeyError: a key cannot be used.
        :raises CacheSerializationError: the serializer cannot encode a value; nothing was stored.
        :raises CacheValueError: a time to live cannot be used.
        """
        entries = [
            (_text(namespace, key), _tag(namespace), self._dump(value), _require_ttl(ttl))
            for (namespace, key), (value, ttl) in pairs.items()
        ]
        if entries:
            await self._home.run(lambda: self._set(entries))

    async def aclear(self, namespaces: Sequence[Namespace] | None = None) -> None:
        """Remove what these namespaces hold; None: everything.

        A value that a node computes meanwhile may still be stored after it.

        :raises CacheKeyError: a namespace cannot be used.
        """
        if namespaces is None:
            await self._home.run(self._clear_all)
        elif tags := [_tag(each) for each in namespaces]:
            await self._home.run(lambda: self._clear(tags))

    def get(self, keys: Sequence[FullKey]) -> dict[FullKey, ValueT]:
        """Do what :meth:`aget` does, from a thread without a running event loop.

        :raises BridgeError: called on the thread of a running event loop.
        """
        return self._home.wait(lambda: self.aget(keys))

    def set(self, pairs: Mapping[FullKey, tuple[ValueT, int | None]]) -> None:
        """Do what :meth:`aset` does, from a thread without a running event loop.

        :raises BridgeError: called on the thread of a running event loop.
        """
        self._home.wait(lambda: self.aset(pairs))

    def clear(self, namespaces: Sequence[Namespace] | None = None) -> None:
        """Do what :meth:`aclear` does, from a thread without a running event loop.

        :raises BridgeError: called on the thread of a running event loop.
        """
        self._home.wait(lambda: self.aclear(namespaces))

    def close(self) -> None:
        """Close the connections that synchronous calls opened on a loop of the process's own.

        :raises BridgeError: called on the thread of a running event loop.
        """
        self._home.close_own(close_cache)

    async def _cache(self) -> ICache[Any]:
        return await get_cache(self._namespace) if self._given is None else self._given

    async def _get(self, wanted: Mapping[str, FullKey]) -> dict[FullKey, ValueT]:
        found = await (await self._cache()).get_many(wanted)
        values: dict[FullKey, ValueT] = {}
        for text, stored in found.items():
            try:
                kind, data = stored
                values[wanted[text]] = self.serde.loads_typed((kind, data))
            except Exception:  # noqa: BLE001, S112 - whatever cannot be read is a miss
                continue
        return values

    async def _set(self, entries: Iterable[tuple[str, str, tuple[str, bytes], int | None]]) -> None:
        cache = await self._cache()
        alike: dict[tuple[str, int | None], dict[str, tuple[str, bytes]]] = {}
        for text, tag, value, ttl in entries:
            alike.setdefault((tag, ttl), {})[text] = value
        for (tag, ttl), values in alike.items():
            await cache.set_many(values, self._ttl if ttl is None else ttl, tags=[tag])

    async def _clear(self, tags: Sequence[str]) -> None:
        await (await self._cache()).invalidate_tags(tags)

    async def _clear_all(self) -> None:
        await (await self._cache()).clear()

    def _dump(self, value: Any) -> tuple[str, bytes]:
        try:
            kind, data = self.serde.dumps_typed(value)
        except Exception as exc:
            raise CacheSerializationError(
                f"a result cannot be encoded ({type(exc).__name__}): {type(value).__name__} is nothing that "
                f"{type(self.serde).__name__} knows, or holds one; return plain data, or leave cache_policy out"
            ) from exc
        return kind, bytes(data)


def _tag(namespace: Any) -> str:
    """Return the tag of a namespace; no two namespaces share one, whatever their labels hold."""
    return dumps(_labels(namespace))


def _text(namespace: Any, key: Any) -> str:
    if not isinstance(key, str):
        raise CacheKeyError(f"key must be text, got {type(key).__name__} {key!r:.80}")
    return dumps([_labels(namespace), key])


def _labels(namespace: Any) -> list[str]:
    if isinstance(namespace, tuple | list) and all(isinstance(each, str) for each in namespace):
        return list(namespace)
    raise CacheKeyError(f"namespace must be a tuple of labels, got {namespace!r:.80}")


def _require_ttl(ttl: Any) -> int | None:
    if ttl is not None and (isinstance(ttl, bool) or not isinstance(ttl, int | float)):
        raise CacheValueError(f"ttl must be seconds or None, got {ttl!r:.80}")
    return ttl  # type: ignore[return-value]
