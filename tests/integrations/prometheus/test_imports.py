"""Showing metrics imports no room that the process does not use."""

import subprocess
import sys

import pytest

COLLECTS = """
import sys
from prometheus_client import CollectorRegistry, generate_latest
from agent_service.integrations.prometheus import AgentServiceCollector, metrics_app
registry = CollectorRegistry()
registry.register(AgentServiceCollector())
assert b"agent_service_session_appends_total" in generate_latest(registry)
"""
PUBLISHES = """
import asyncio, sys
from agent_service.integrations.fleet import publish_fleet, read_fleet
from agent_service.infrastructure.redis.factory import close_redis

async def main():
    publishing = asyncio.create_task(publish_fleet(0.1))
    while not await read_fleet():
        await asyncio.sleep(0.01)
    publishing.cancel()
    await asyncio.wait([publishing])
    await close_redis()

asyncio.run(main())
"""
NOT_LOADED = "assert not {'sqlalchemy', 'fastapi', 'starlette'} & sys.modules.keys()"


@pytest.mark.parametrize("program", [COLLECTS, PUBLISHES])
def test_neither_the_database_nor_a_framework_is_imported(
    program: str, redis_url: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("REDIS_URL", redis_url)
    run = [sys.executable, "-c", program + NOT_LOADED]

    done = subprocess.run(run, capture_output=True, text=True, check=False, timeout=60)

    assert done.returncode == 0, done.stderr
