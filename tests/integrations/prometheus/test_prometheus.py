"""A real Prometheus scrapes a real server, and evaluates the alerts."""

from importlib.resources import files
from pathlib import Path
from typing import Any

import httpx

from agent_service.infrastructure.cache.factory import close_cache, get_cache
from agent_service.integrations.prometheus import metrics_app
from tests.integrations.prometheus.serving import mounted, served
from tests.servers.prometheus import running_prometheus
from tests.support.waiting import until

RULES = Path(str(files("agent_service.integrations.prometheus"))) / "alerts.yml"


async def test_prometheus_reads_what_was_counted_and_evaluates_every_alert(tmp_path: Path):
    cache = await get_cache("scraped")
    await cache.set("a", 1)
    for _ in range(3):
        await cache.get("a")

    async with served(mounted(metrics_app())) as where, httpx.AsyncClient(trust_env=False) as asking:
        with running_prometheus(tmp_path, target=where, rules=RULES) as url:

            async def ask(path: str, **parameters: str) -> Any:
                try:
                    answer = await asking.get(f"{url}/api/v1/{path}", params=parameters)
                    return answer.json()["data"]
                except (httpx.TransportError, ValueError):
                    return None

            async def scraped() -> bool:
                found = await ask("query", query='agent_service_cache_requests_total{namespace="scraped",result="hit"}')
                return bool(found and found["result"] and found["result"][0]["value"][1] == "3")

            async def evaluated() -> bool:
                found = await ask("rules")
                rules = [rule for group in (found or {"groups": []})["groups"] for rule in group["rules"]]
                return bool(rules) and all(rule["health"] == "ok" for rule in rules)

            await until(scraped)
            await until(evaluated)
            up = await ask("query", query="up")
            build = await ask("query", query="agent_service_build_info")
            metadata = await ask("metadata", metric="agent_service_cache_requests")
            alerts = await ask("alerts")
    await close_cache()

    assert up["result"][0]["value"][1] == "1"
    assert build["result"][0]["value"][1] == "1"
    assert metadata["agent_service_cache_requests"][0]["type"] == "counter"
    assert alerts["alerts"] == []
