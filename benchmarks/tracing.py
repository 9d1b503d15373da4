"""
What traces and metrics cost, the same calls with and without instrument() in one run: ``python -m benchmarks.tracing``.

Processor time of this process is compared, because that is what instrumentation adds. Spans go through the SDK's batch
processor to an exporter that drops them; every call is within a span that is sampled, as a handler's is.
"""

import asyncio
import logging
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import Tracer

from agent_service.infrastructure.cache.calls.decorators import cached
from agent_service.infrastructure.database.append.writer import SessionWriter
from agent_service.infrastructure.database.engine import DatabaseManager
from agent_service.infrastructure.redis.client import RedisClient
from agent_service.integrations.otel import instrument, uninstrument
from benchmarks.append import MESSAGE, migrate, new_session
from tests.servers.postgres import running_postgres
from tests.servers.redis import RedisServer

Call = Callable[[], Awaitable[object]]

TASKS = 64
ROUNDS = 15


class Dropping(SpanExporter):
    """Exports nowhere."""

    def export(self, _spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Drop the spans."""
        return SpanExportResult.SUCCESS


@asynccontextmanager
async def calls(redis_url: str, database_url: str) -> AsyncIterator[dict[str, tuple[Call, int]]]:
    """Open what is called; give each call with the number of operations in it."""

    @cached(ttl=3600, key_prefix="bench")
    async def load(number: int) -> int:
        return number

    async with AsyncExitStack() as stack:
        client = RedisClient(redis_url, max_connections=TASKS)
        stack.push_async_callback(client.aclose)
        await client.execute("SET", "k", "v")
        database = DatabaseManager(database_url)
        stack.push_async_callback(database.close)
        sessions = [await new_session(database) for _ in range(TASKS)]
        writer = await stack.enter_async_context(SessionWriter(database))

        async def hits() -> None:
            for _ in range(5000):
                await load(1)

        async def gets() -> None:
            async def get() -> None:
                for _ in range(50):
                    await client.get(b"k")

            await asyncio.gather(*(get() for _ in range(TASKS)))

        async def appends() -> None:
            for _ in range(100):
                await writer.append(sessions[0], MESSAGE)

        async def appends_together() -> None:
            async def talk(task: int) -> None:
                for _ in range(10):
                    await writer.append(sessions[task], MESSAGE)

            await asyncio.gather(*map(talk, range(TASKS)))

        yield {
            "decorated hit in memory": (hits, 5000),
            f"Redis GET, {TASKS} tasks": (gets, 50 * TASKS),
            "SessionWriter, one task": (appends, 100),
            f"SessionWriter, {TASKS} tasks": (appends_together, 10 * TASKS),
        }


async def compare(call: Call, operations: int, tracer: Tracer, switch_on: Callable[[], None]) -> list[float]:
    """Return the processor seconds of an operation without and with instrumentation, turn by turn; and then those of
    the clock on the wall."""
    spent: dict[bool, list[float]] = {False: [], True: []}
    took: dict[bool, list[float]] = {False: [], True: []}
    for number in range(2 * ROUNDS + 2):
        instrumented = bool(number % 2)
        (switch_on if instrumented else uninstrument)()
        with tracer.start_as_current_span("request"):
            began, started = time.perf_counter(), time.process_time()
            await call()
            spent[instrumented].append((time.process_time() - started) / operations)
            took[instrumented].append((time.perf_counter() - began) / operations)
    uninstrument()
    return [statistics.median(each[on][1:]) for each in (spent, took) for on in (False, True)]


async def measure(redis_url: str, database_url: str) -> None:
    """Print a line for each kind of call."""
    traces, meters = TracerProvider(), MeterProvider([InMemoryMetricReader()])
    traces.add_span_processor(BatchSpanProcessor(Dropping()))
    async with calls(redis_url, database_url) as given:
        for name, (call, operations) in given.items():
            tracer = traces.get_tracer("bench")
            off, on, slow_off, slow_on = await compare(call, operations, tracer, lambda: instrument(traces, meters))
            print(
                f"  {name:26s} processor {off * 1e6:8.2f} us {on * 1e6:8.2f} us {on / off:6.3f} x"
                f"   wall {slow_off * 1e6:8.2f} us {slow_on * 1e6:8.2f} us {slow_on / slow_off:6.3f} x"
            )
    traces.shutdown()
    meters.shutdown()


def run() -> None:
    """Print the table."""
    logging.getLogger("agent_service").setLevel(logging.ERROR)
    print("Processor time of an operation, without and with instrument()")
    with RedisServer() as redis, running_postgres(durable=True) as postgres:
        asyncio.run(migrate(postgres))
        asyncio.run(measure(redis.url, postgres.database_url("postgres")))


if __name__ == "__main__":
    run()
