"""State in Redis."""

from typing import Final

from agent_service.context.redis import RedisContextStore
from agent_service.infrastructure.redis.client import RedisClient
from agent_service.state.interface import ContextT
from agent_service.state.over_context import ContextStateStore

__all__ = ["RedisStateStore"]

_PREFIX: Final = "agent_state"


class RedisStateStore(ContextStateStore[ContextT]):
    """Keeps contexts in Redis, shared by every process that names the same server and prefix. They do not expire.

    The context of user ``u`` is the hash ``{prefix}_{u}``, each field JSON. With a URL the store opens connections of
    its own, on every event loop that uses it, and :meth:`aclose` closes them; a client that was given is the caller's.

    :param url: any URL that REDIS_URL may be; neither it nor a client: the Redis of REDIS_URL.
    :param prefix: begins every Redis key. Stores that share a server need prefixes of which none, with its ``_``,
        begins another.
    :param model: what is kept; None: CoachContext.
    :param timeout: seconds an operation may take.
    :raises ConfigurationError: for arguments that contradict one another, or a URL that cannot be used.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        client: RedisClient | None = None,
        prefix: str = _PREFIX,
        model: type[ContextT] | None = None,
        timeout: float = 0.5,
    ) -> None:
        super().__init__(RedisContextStore(url=url, client=client, prefix=prefix, timeout=timeout), model=model)

    async def aclose(self) -> None:
        await self._store.aclose()
