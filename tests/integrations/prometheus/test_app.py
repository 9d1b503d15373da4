"""The answers of /metrics: formats, methods, mounts, and what fails."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import httpx
import pytest
from prometheus_client import CollectorRegistry, Counter
from prometheus_client.core import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families

from agent_service.core.errors import ConfigurationError
from agent_service.infrastructure.cache.factory import close_cache, get_cache
from agent_service.infrastructure.redis.factory import close_redis
from agent_service.integrations.metrics.catalogue import FAMILIES
from agent_service.integrations.prometheus import AgentServiceCollector, metrics_app
from tests.integrations.prometheus.serving import mounted, served
from tests.servers.prometheus import promtool
from tests.support.outbox import configure

OPEN = "application/openmetrics-text; version=1.0.0,text/plain;version=0.0.4;q=0.5"


@asynccontextmanager
async def client(app: object) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app=app)  # type: ignore[arg-type]
    async with httpx.AsyncClient(transport=transport, base_url="http://here") as asking:
        yield asking


async def test_every_family_is_shown_and_promtool_has_no_objection():
    cache = await get_cache('odd "name"\\ \n')
    await cache.set("a", 1)
    async with client(metrics_app()) as asking:
        answer = await asking.get("/")
    await close_cache()

    assert answer.status_code == 200
    shown = {f"{each.name}_total" if each.type == "counter" else each.name for each in families(answer.text)}
    assert {family.exposed for family in FAMILIES.values()} | {"agent_service_build_info"} == shown
    assert promtool("check", "metrics", stdin=answer.content) == ""


async def test_the_format_is_the_one_that_is_asked_for():
    async with client(metrics_app()) as asking:
        plain = await asking.get("/")
        opened = await asking.get("/", headers={"accept": OPEN})

    assert plain.headers["content-type"].startswith("text/plain")
    assert opened.headers["content-type"].startswith("application/openmetrics-text")
    assert opened.text.endswith("# EOF\n")
    assert len(list(parse_openmetrics(opened.text))) == len(families(plain.text))


async def test_other_methods_are_refused_and_a_head_has_no_body():
    async with client(metrics_app()) as asking:
        posted = await asking.post("/")
        head = await asking.head("/")

    assert (posted.status_code, posted.headers["allow"]) == (405, "GET, HEAD")
    assert (head.status_code, head.content) == (200, b"")
    assert int(head.headers["content-length"]) > 1000


async def test_it_is_part_of_an_application():
    async with client(mounted(metrics_app())) as asking:
        answer = await asking.get("/metrics", follow_redirects=True)

    assert "agent_service_cache_requests_total" in answer.text


async def test_it_is_a_whole_application_too():
    async with served(metrics_app(), lifespan="on") as where, httpx.AsyncClient(trust_env=False) as asking:
        answer = await asking.get(f"http://{where}/")

    assert answer.status_code == 200


async def test_metrics_of_others_are_shown_beside():
    registry = CollectorRegistry()
    Counter("theirs", "Something.", registry=registry).inc(3)
    async with client(metrics_app(registry=registry)) as asking:
        text = (await asking.get("/")).text

    assert "theirs_total 3.0" in text
    assert "agent_service_build_info" in text


def test_the_collector_can_be_registered_and_asks_nothing_then():
    registry = CollectorRegistry()
    registry.register(AgentServiceCollector())

    with pytest.raises(ValueError, match="Duplicated"):
        registry.register(AgentServiceCollector())
    assert registry.get_sample_value("agent_service_triggers_dead_total") == 0


@pytest.mark.parametrize(
    ("given", "message"),
    [({"fleet": True, "registry": CollectorRegistry()}, "both"), ({"registry": "REGISTRY"}, "'REGISTRY'")],
)
def test_arguments_that_cannot_be_used_are_refused(given, message: str):
    with pytest.raises(ConfigurationError, match=message):
        metrics_app(**given)


async def test_a_fleet_that_cannot_be_read_is_a_503_without_any_text_of_a_driver(monkeypatch: pytest.MonkeyPatch):
    configure(monkeypatch, redis_url="redis://secret:word@127.0.0.1:1/0", redis_timeout="0.2")
    async with client(metrics_app(fleet=True)) as asking:
        answer = await asking.get("/")
    await close_redis()

    assert (answer.status_code, answer.text) == (503, "the processes cannot be read now\n")


async def test_a_scrape_does_not_stop_the_event_loop(monkeypatch: pytest.MonkeyPatch):
    turns, during = 0, [0]

    async def turn() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    def collect(collector: AgentServiceCollector) -> Iterator[Metric]:
        before = turns
        while turns < before + 100:  # for ever, if the loop stood still meanwhile
            time.sleep(0.001)
        during[0] = turns - before
        yield from collected(collector)

    collected = AgentServiceCollector.collect
    monkeypatch.setattr(AgentServiceCollector, "collect", collect)
    async with client(metrics_app()) as asking:
        turning = asyncio.create_task(turn())
        answer = await asking.get("/")
        turning.cancel()

    assert answer.status_code == 200
    assert during[0] >= 100


def families(text: str):
    return list(text_string_to_metric_families(text))
