"""How many files a reader enters who follows a call, and how often: see ``benchmarks/walks.py``."""

from typing import Final

import pytest

from agent_service.core.settings import reset_settings
from benchmarks.walks import measure
from tests.servers.redis import RedisServer

MOST: Final = {
    "a decorated miss on Redis": (28, 78),
    "a decorated hit on Redis": (12, 18),
    "a decorated miss in memory": (16, 30),
    "a decorated hit in memory": (0, 0),
    "CacheBackedContextStore.set": (12, 35),
}
"""Files and moves. A longer way needs a reason that is worth more than the reader's time."""


ATTEMPTS: Final = 5
"""On a busy machine a deadline is looked at more often, which is a move each time."""


async def test_no_decorated_call_takes_a_longer_way_than_it_did(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("REDIS_URL", redis_server.url)
    reset_settings()
    longer: dict[str, tuple[int, int]] = {}
    for _ in range(ATTEMPTS):
        redis_server.cli("FLUSHDB")
        walks = await measure(redis_server.url)
        found = {name: (len(walks[name].files), walks[name].moves) for name in MOST}
        longer = {name: each for name, each in found.items() if each[0] > MOST[name][0] or each[1] > MOST[name][1]}
        if not longer:
            break

    assert longer == {}
