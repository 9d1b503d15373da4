"""State in Redis."""

from typing import Any, Final

from agent_service.context.redis import RedisContextStore
from agent_service.core.errors import ConfigurationError, ContextStoreError
from agent_service.core.ttl import NEVER, TTL
from agent_service.infrastructure.redis.manager import RedisManager
from agent_service.state.interface import ContextT
from agent_service.state.over_context import ContextStateStore

__all__ = ["RedisStateStore"]

_PREFIX: Final = "agent_state"


class RedisStateStore(ContextStateStore[ContextT]):
    """Keeps contexts in Redis, shared by every process that names the same server and prefix.

    The context of user ``u`` is the hash ``{prefix}_{u}``, each field JSON. With a URL the store opens its own
    connections on every event loop that uses it, and :meth:`aclose` closes them; a given client or manager stays the
    caller's. A replica that takes over may lack the latest saves, so that an old ``expected_version`` matches again.

    :param url: any URL that REDIS_URL may be; without url, client and manager: the Redis of REDIS_URL.
    :param client: a :class:`RedisClient`, or a client of ``redis.asyncio`` that does not decode replies.
    :param manager: a :class:`RedisManager`, whose client is used.
    :param prefix: the beginning of every Redis key. No prefix of stores that share a server, with its ``_``, may be the
        beginning of another.
    :param ttl: seconds or a timedelta that a context lives after its last save; NEVER: it does not expire.
    :param model: the class of the contexts; None: CoachContext.
    :param timeout: seconds an operation may take.
    :raises ConfigurationError: if arguments contradict one another or cannot be used.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        client: Any = None,
        manager: RedisManager | None = None,
        prefix: str = _PREFIX,
        ttl: TTL = NEVER,
        model: type[ContextT] | None = None,
        timeout: float = 0.5,
    ) -> None:
        try:
            store = RedisContextStore(url=url, client=client, manager=manager, prefix=prefix, ttl=ttl, timeout=timeout)
        except ContextStoreError as exc:
            raise ConfigurationError(str(exc)) from exc
        super().__init__(store, model=model)

    async def aclose(self) -> None:
        await self._store.aclose()
