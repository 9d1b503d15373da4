"""The connections of redis-py, as the transports use them: with limits in turns, and TLS on a shared context."""

import ssl
from collections.abc import Mapping
from typing import Any

from redis.asyncio import Connection
from redis.asyncio.sentinel import SentinelManagedConnection
from redis.exceptions import TimeoutError as RedisTimeoutError

from agent_service.core.turns import Turns
from agent_service.infrastructure.redis.transport.arrived import has_arrived
from agent_service.infrastructure.redis.transport.tls import Tls

__all__ = ["PatientConnection", "TlsConnection", "TlsSentinelConnection"]


class PatientConnection(Connection):
    """A connection whose limits count turns of the event loop, where redis-py's own count seconds.

    :param connect_within: seconds to connect; None: no limit of its own.
    :param answer_within: seconds to wait for a reply; None: no limit of its own.
    """

    def __init__(
        self, *, connect_within: float | None = None, answer_within: float | None = None, **options: Any
    ) -> None:
        super().__init__(**options)
        self._connect_within = connect_within
        self._answer_within = answer_within

    async def _connect(self) -> None:
        async with Turns(self._connect_within):
            await super()._connect()  # type: ignore[no-untyped-call]

    async def read_response(self, *args: Any, **options: Any) -> Any:
        """Read a reply."""
        if self._answer_within is None:
            return await super().read_response(*args, **options)
        try:
            async with Turns(self._answer_within, self._has_arrived):
                return await super().read_response(*args, **options)
        except TimeoutError as exc:
            raise RedisTimeoutError(f"{self.host}:{self.port} did not answer within {self._answer_within:g} s") from exc

    def _has_arrived(self) -> bool:
        return has_arrived(self)


class TlsConnection(PatientConnection):
    """A TLS connection."""

    def __init__(self, *, tls: Tls, **options: Any) -> None:
        super().__init__(**options)
        self._tls = tls
        self._context: ssl.SSLContext | None = None

    async def _connect(self) -> None:
        self._context = await self._tls.context()
        await super()._connect()

    def _connection_arguments(self) -> Mapping[str, Any]:
        return {**super()._connection_arguments(), "ssl": self._context}

    async def disconnect(self, *args: Any, **options: Any) -> None:
        """Cut the connection: Python would wait 30 seconds for the TLS goodbye of a server that hangs."""
        if self._writer is not None:
            self._writer.transport.abort()
        await super().disconnect(*args, **options)


class TlsSentinelConnection(SentinelManagedConnection, TlsConnection):
    """A TLS connection to the master that sentinels name."""
