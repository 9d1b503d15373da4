"""An ASGI application that answers with metrics, for Prometheus to scrape."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from typing import Any, Final, TypeAlias

from prometheus_client.core import Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector, CollectorRegistry

from agent_service.core.errors import ConfigurationError, DatabaseError, RedisOperationError
from agent_service.core.plain_threads import PlainThreads
from agent_service.integrations.prometheus.collector import AgentServiceCollector, FleetCollector

__all__ = ["MetricsApp", "metrics_app"]

Scope: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Scope]]
Send: TypeAlias = Callable[[Scope], Awaitable[None]]

_PLAIN: Final = "text/plain; charset=utf-8"


def metrics_app(*, fleet: bool = False, registry: Collector | None = None) -> "MetricsApp":
    """Return an ASGI application that answers GET and HEAD with metrics, in the format that the client prefers.

    ::

        app.mount("/metrics", metrics_app())

    :param fleet: show what all processes publish (:func:`~agent_service.integrations.fleet.publish_fleet`), each under
        its label ``process``, instead of this process alone. It answers 503 while that cannot be read.
    :param registry: further metrics to show, such as ``prometheus_client.REGISTRY``. They are those of this process,
        so they do not go together with ``fleet``; nor should an AgentServiceCollector be among them.
    :raises ConfigurationError: if both are given, or the registry is none.
    """
    if fleet and registry is not None:
        raise ConfigurationError(
            "fleet and registry cannot be given both: a registry holds metrics of one process; serve them elsewhere"
        )
    if registry is not None and not hasattr(registry, "collect"):
        raise ConfigurationError(f"registry must be a CollectorRegistry, got {registry!r:.80}")
    return MetricsApp(fleet=fleet, registry=registry)


class MetricsApp:
    """See :func:`metrics_app`."""

    def __init__(self, *, fleet: bool, registry: Collector | None) -> None:
        self._fleet = fleet
        self._others = () if registry is None else (registry,)
        self._threads = PlainThreads(1, "agent-service-metrics")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _live(receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1000, "reason": None})
        else:
            await self._answer(scope, send)

    async def _answer(self, scope: Scope, send: Send) -> None:
        if scope["method"] not in {"GET", "HEAD"}:
            await _respond(scope, send, 405, b"use GET\n", _PLAIN, (b"allow", b"GET, HEAD"))
            return
        try:
            own = await _of_all_processes() if self._fleet else AgentServiceCollector()
        except (RedisOperationError, DatabaseError):  # its text is for the log of the outage, not for whoever asks
            await _respond(scope, send, 503, b"the processes cannot be read now\n", _PLAIN)
            return
        encode, content_type = choose_encoder(_header(scope, b"accept"))
        loop = asyncio.get_running_loop()  # of 200 namespaces it takes 0.1 seconds, for which the loop shall not stop
        body = await loop.run_in_executor(self._threads.pool, encode, _Joined(own, *self._others))
        await _respond(scope, send, 200, body, content_type)


async def _of_all_processes() -> Collector:
    from agent_service.integrations.fleet.publish import read_fleet  # noqa: PLC0415 - only if asked for

    return FleetCollector(await read_fleet())


class _Joined(CollectorRegistry):
    """Collectors one after another; as a registry, because encoders ask for one."""

    def __init__(self, *collectors: Collector) -> None:
        super().__init__()
        self._collectors = collectors

    def collect(self) -> Iterator[Metric]:
        for each in self._collectors:
            yield from each.collect()


def _header(scope: Scope, name: bytes) -> str:
    return ",".join(value.decode("latin-1") for key, value in scope["headers"] if key == name)


async def _respond(
    scope: Scope, send: Send, status: int, body: bytes, content_type: str, *headers: tuple[bytes, bytes]
) -> None:
    about = [(b"content-type", content_type.encode()), (b"content-length", b"%d" % len(body)), *headers]
    await send({"type": "http.response.start", "status": status, "headers": about})
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})


async def _live(receive: Receive, send: Send) -> None:
    """Agree to start and to stop, where this is the whole application of a server."""
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
