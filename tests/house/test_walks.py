"""How many files a reader enters who follows a call, and how often: see ``benchmarks/walks.py``."""

from typing import Final

import pytest

from agent_service.core.settings import reset_settings
from benchmarks.walks import measure, settings
from tests.servers.redis import RedisServer

MOST: Final = {
    "a decorated miss on Redis": (21, 63),
    "a decorated hit on Redis": (10, 16),
    "a decorated miss in memory": (14, 26),
    "a decorated hit in memory": (0, 0),
    "CacheBackedContextStore.set": (12, 35),
}
"""Files and moves. A longer way needs a reason that is worth more than the reader's time: loads, operations of stores
and commands are observed in a histogram, of ``core/histogram.py``."""


async def test_no_decorated_call_takes_a_longer_way_than_it_did(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
):
    for name, value in settings(redis_server.url).items():
        monkeypatch.setenv(name, value)
    reset_settings()

    walks = await measure(redis_server.url)

    found = {name: (len(walks[name].files), walks[name].moves) for name in MOST}
    assert {name: each for name, each in found.items() if each[0] > MOST[name][0] or each[1] > MOST[name][1]} == {}
