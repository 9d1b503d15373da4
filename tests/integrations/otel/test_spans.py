"""Spans of what is ours: names, kinds, attributes, parents and errors."""

import asyncio
import logging
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from opentelemetry import baggage, context, trace
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.trace import SpanKind, StatusCode

from agent_service.core.errors import SessionNotFoundError
from agent_service.infrastructure.cache.calls.decorators import cached
from agent_service.infrastructure.cache.factory import close_cache, get_cache
from agent_service.infrastructure.database import SessionWriter
from agent_service.infrastructure.database.engine import DatabaseManager
from agent_service.infrastructure.database.models.session import Session
from agent_service.infrastructure.database.repositories import SessionRepository
from agent_service.integrations.otel import instrument, uninstrument
from agent_service.runtime.executor import ContextThreadPool
from agent_service.tenants import handlers as registry
from agent_service.tenants.runner import TriggerRunner, on_trigger
from agent_service.tenants.schedule import Trigger
from agent_service.tenants.trigger import RedisTrigger
from tests.integrations.otel.seen import Seen

SAID = {"role": "user", "content": "a needle in a haystack"}


@pytest.fixture
async def session_id(database: DatabaseManager) -> UUID:
    async with database.session() as db:
        return (await SessionRepository(db).create(Session(user_id="ada", title="needle"))).id


def parent_of(span: ReadableSpan) -> int | None:
    return span.parent.span_id if span.parent is not None else None


async def test_an_append_is_a_span_of_its_caller_about_its_conversation(
    database: DatabaseManager, session_id: UUID, seen: Seen
) -> None:
    async with SessionWriter(database) as writer, database.session() as db:
        with seen.tracer.start_as_current_span("request") as request:
            await writer.append(session_id, SAID)
            await SessionRepository(db).add_message_to_session(session_id, SAID)
            await SessionRepository(db).add_messages_to_session(session_id, [SAID, SAID])

    spans = seen.spans("append session_messages")
    assert len(spans) == 3
    for span in spans:
        assert span.kind is SpanKind.CLIENT
        assert parent_of(span) == request.get_span_context().span_id
        assert span.status.status_code is StatusCode.UNSET
        attributes = dict(span.attributes or {})
        assert attributes["gen_ai.conversation.id"] == str(session_id)
        assert attributes["db.system.name"] == ("sqlite" if database.embedded else "postgresql")
        assert attributes["db.operation.name"] == "append"
        assert attributes["db.collection.name"] == "session_messages"
        assert str(attributes["db.namespace"]) in str(database)
        assert ("server.address" in attributes) is not database.embedded


async def test_a_failure_is_told_by_its_class_and_nothing_that_callers_gave_is(
    database: DatabaseManager, seen: Seen
) -> None:
    async with SessionWriter(database) as writer:
        with pytest.raises(SessionNotFoundError):
            await writer.append(uuid4(), {"role": "user", "content": "s3cret"}, client_id="s3cret", tenant_id="s3cret")

    span = seen.span("append session_messages")
    assert span.status.status_code is StatusCode.ERROR
    assert dict(span.attributes or {})["error.type"] == "SessionNotFoundError"
    assert span.events == ()
    assert "s3cret" not in span.to_json()


async def test_searches_are_spans(database: DatabaseManager, session_id: UUID, seen: Seen) -> None:
    async with database.session() as db:
        repo = SessionRepository(db)
        await repo.add_message_to_session(session_id, SAID)
        await repo.search_sessions("ada", "needle")
        await repo.search_messages("ada", "needle")

    for name in ("sessions", "session_messages"):
        span = seen.span(f"search {name}")
        assert span.kind is SpanKind.CLIENT
        assert dict(span.attributes or {})["db.collection.name"] == name
        assert "needle" not in span.to_json()


async def test_a_load_is_a_child_of_the_caller_that_began_it_and_sees_none_of_its_baggage(seen: Seen) -> None:
    inside: list[tuple[int, Any]] = []

    @cached(ttl=60, key_prefix="otel")
    async def load(number: int) -> int:
        await asyncio.sleep(0)
        inside.append((trace.get_current_span().get_span_context().span_id, baggage.get_all()))
        return number

    with seen.tracer.start_as_current_span("first") as first:
        token = context.attach(baggage.set_baggage("user", "ada"))
        assert list(await asyncio.gather(load(1), load(1), load(1))) == [1, 1, 1]
        context.detach(token)
    with seen.tracer.start_as_current_span("second"):
        await load(1)
    cache = await get_cache("many")
    with seen.tracer.start_as_current_span("third") as third:
        await cache.get_or_load_many(["a", "b"], _loaded)
    await close_cache()

    span, of_many = seen.spans("cache load")
    assert span.kind is SpanKind.INTERNAL
    assert parent_of(span) == first.get_span_context().span_id
    assert span.context is not None
    assert inside == [(span.context.span_id, {})]
    assert "agent_service.cache.namespace" in (span.attributes or {})
    assert parent_of(of_many) == third.get_span_context().span_id
    assert dict(of_many.attributes or {}) == {"agent_service.cache.namespace": "many", "agent_service.cache.keys": 2}


async def _loaded(keys: list[str]) -> dict[str, int]:
    return dict.fromkeys(keys, 1)


async def test_a_load_that_nobody_traced_is_a_root(seen: Seen) -> None:
    cache = await get_cache("loads")
    await cache.get_or_load("a", _one)
    await close_cache()

    assert seen.span("cache load").parent is None
    assert dict(seen.span("cache load").attributes or {}) == {"agent_service.cache.namespace": "loads"}


async def _one() -> int:
    return 1


async def test_work_in_pool_threads_belongs_to_the_span_that_submitted_it(seen: Seen) -> None:
    pool = ContextThreadPool("tools", 1)

    with seen.tracer.start_as_current_span("tool") as tool:
        found = await asyncio.get_running_loop().run_in_executor(pool, trace.get_current_span)
    pool.shutdown()

    assert found is tool


async def test_a_trigger_is_a_trace_of_its_own(
    redis_url: str, monkeypatch: pytest.MonkeyPatch, seen: Seen, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL, "agent_service")
    monkeypatch.setenv("REDIS_URL", redis_url)
    before = dict(registry._handlers)
    handled = asyncio.Event()

    @on_trigger("remind-in-a-trace")
    async def remind(trigger: Trigger) -> None:
        if trigger.attempt == 1:
            raise ValueError("s3cret")
        handled.set()

    try:
        with seen.tracer.start_as_current_span("service"):
            async with TriggerRunner(poll_interval=0.01, backoff=(0.01, 0.02)):
                await RedisTrigger("acme").set("remind-in-a-trace", "alice", timedelta(seconds=0.01))
                await asyncio.wait_for(handled.wait(), 60)
    finally:
        registry._handlers.clear()
        registry._handlers.update(before)
        await close_cache()

    failed, done = seen.spans("handle trigger")
    assert failed.parent is done.parent is None
    assert failed.kind is SpanKind.CONSUMER
    assert dict(failed.attributes or {}) == {
        "agent_service.trigger.action": "remind-in-a-trace",
        "agent_service.trigger.attempt": 1,
        "error.type": "ValueError",
    }
    assert dict(done.attributes or {})["agent_service.trigger.attempt"] == 2


async def test_after_uninstrument_nothing_is_told(database: DatabaseManager, session_id: UUID, seen: Seen) -> None:
    uninstrument()
    uninstrument()

    async with SessionWriter(database) as writer:
        await writer.append(session_id, SAID)
    cache = await get_cache("off")
    await cache.get_or_load("a", _one)
    await close_cache()

    assert seen.exporter.get_finished_spans() == ()
    assert seen.durations() == []
    assert seen.points("db.client.connection.count") == []


@pytest.mark.parametrize("where", ["on_start", "on_end"])
async def test_what_is_traced_goes_on_when_a_processor_raises(
    database: DatabaseManager, session_id: UUID, where: str, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(SpanProcessor):
        pass

    def fail(self: Broken, *_args: Any, **_more: Any) -> None:
        raise ValueError("a secret")

    setattr(Broken, where, fail)
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(Broken())
    instrument(provider)
    try:
        async with SessionWriter(database) as writer:
            stored = [await writer.append(session_id, {"role": "user", "content": "Hi"}) for _ in range(2)]
    finally:
        uninstrument()
        provider.shutdown()

    assert [each.seq for each in stored] == [1, 2]
    (line,) = [each.getMessage() for each in caplog.records if "OpenTelemetry" in each.getMessage()]
    assert line.endswith("ValueError")
