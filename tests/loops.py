"""Which tests run on uvloop as well, the loop of ``uvicorn[standard]``: those whose code meets transports, timers or
threads, where one loop may differ from another. Elsewhere uvloop is not made for Windows."""

import asyncio
import faulthandler
from collections.abc import Callable, Mapping

import pytest

try:
    import uvloop
except ImportError:  # on Windows
    uvloop = None  # type: ignore[assignment]

ON_EVERY_LOOP = (
    "cache/test_contract.py",
    "cache/test_late_commands.py",
    "cache/test_outage.py",
    "cache/test_tiered.py",
    "database/test_concurrency.py",
    "database/test_deadlines.py",
    "database/test_engine.py",
    "database/test_feed.py",
    "database/test_writer.py",
    "integrations/fastapi/rest/test_events.py",
    "outbox/test_run.py",
    "redis/test_client.py",
    "redis/test_faults.py",
    "redis/test_manager.py",
    "redis/test_operation.py",
    "redis/test_slots.py",
    "redis/test_stalls.py",
    "redis/test_tls.py",
    "redis/test_topologies.py",
    "redis/test_tracking",
    "runtime/",
    "tenants/test_trigger_runner.py",
)
"""What the paths begin with, below ``tests/``."""

CLOSING = 60.0
"""Seconds that a loop may take to close."""

if uvloop is not None:

    class Loop(uvloop.Loop):
        """A uvloop that ends the run if it does not close: no time limit of pytest reaches it there.

        It waits for ever for a connection that a failed test has left behind.
        """

        def close(self) -> None:
            faulthandler.dump_traceback_later(CLOSING, exit=True)
            try:
                super().close()
            finally:
                faulthandler.cancel_dump_traceback_later()


LoopFactory = Callable[[], asyncio.AbstractEventLoop]


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> Mapping[str, LoopFactory]:
    factories: dict[str, LoopFactory] = {"asyncio": asyncio.new_event_loop}
    path = item.path.relative_to(config.rootpath / "tests").as_posix()
    if uvloop is not None and path.startswith(ON_EVERY_LOOP):
        factories["uvloop"] = Loop
    return factories
