"""``agent-service top``: what every process of the fleet does now, as a table that renews itself."""

import asyncio
import sys
from argparse import Namespace
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Protocol

from agent_service.cli.console import Console
from agent_service.cli.grammar import add_command, positive
from agent_service.infrastructure.cache.factory import close_cache
from agent_service.infrastructure.database.connection import close_database
from agent_service.integrations.fleet import ProcessSnapshot, read_fleet

__all__ = ["register"]

COLUMNS = (
    *("process", "up", "requests/s", "hit ratio", "loads/s", "p99 load", "redis", "breaker", "journal"),
    *("pool", "pool wait p99", "appends/s", "pending", "batch", "outbox"),
)
_NOBODY = (
    "no process publishes what it measures; a service does with AgentService(background=[publish_fleet]), "
    "see docs/observability.md"
)


def register(commands: Any) -> None:
    """Add ``top``."""
    parser = add_command(
        commands,
        "top",
        _top,
        "watch every process of the service: hit ratio, breaker, pools, writer; Ctrl-C ends it",
        "top --interval 5",
        "top --once --json",
    )
    parser.add_argument(
        "--interval", type=positive, default=2, metavar="SECONDS", help="between two looks, and for rates (default 2)"
    )
    parser.add_argument("--once", action="store_true", help="show one table and end, as in a pipe")


def _top(arguments: Namespace, console: Console) -> int:
    async def run() -> int:
        try:
            await _watch(arguments, console)
        finally:
            await close_cache()
            await close_database()
        return 0

    return asyncio.run(run())


async def _watch(arguments: Namespace, console: Console) -> None:
    once = arguments.once or console.as_json or not sys.stdout.isatty()
    before = {each.process: each for each in await read_fleet()}
    if not before:
        console.note(_NOBODY)
    with _screen(wanted=not once) as screen:
        while True:
            await asyncio.sleep(arguments.interval)
            found = await read_fleet()
            rows = [_row(each, before.get(each.process)) for each in found]
            if once:
                console.table("processes", COLUMNS, rows)
                return
            screen.show(rows)
            before = {each.process: each for each in found}


def _row(now: ProcessSnapshot, before: ProcessSnapshot | None) -> list[object]:
    since = _Since(now, before)
    requests = since.count("cache_requests")
    hits = requests - since.count("cache_requests", result="miss")
    batches = since.count("writer_batch_size")
    limit = now.value("db_pool_connections_limit")
    return [
        now.process,
        _span((datetime.now(UTC) - now.started_at).total_seconds()),
        round(requests / since.seconds, 1),
        round(hits / requests, 3) if requests else None,
        round(since.count("cache_loads") / since.seconds, 1),
        _span(now.percentile("cache_load_duration_seconds", 99)),
        _available(now),
        _breaker(now),
        int(now.value("cache_journal_length")),
        f"{now.value('db_pool_connections', state='in_use'):.0f}/{limit:.0f}" if limit else None,
        _span(now.percentile("db_pool_wait_seconds", 99)),
        round(since.count("session_appends") / since.seconds, 1),
        int(now.value("writer_pending")),
        round(since.count("session_appends", via="writer") / batches, 1) if batches else None,
        _span(now.value("outbox_oldest_age_seconds")),
    ]


class _Since:
    """What was counted between two snapshots of a process; since its start where there is but one."""

    def __init__(self, now: ProcessSnapshot, before: ProcessSnapshot | None) -> None:
        same = before is not None and before.started_at == now.started_at and before.taken_at < now.taken_at
        self._now = now
        self._before = before if same else None
        began = self._before.taken_at if self._before is not None else now.started_at
        self.seconds = max((now.taken_at - began).total_seconds(), 0.001)

    def count(self, name: str, **labels: str) -> float:
        """Return how much a counter has risen."""
        earlier = self._before.value(name, **labels) if self._before is not None else 0.0
        return max(self._now.value(name, **labels) - earlier, 0.0)


def _available(now: ProcessSnapshot) -> str:
    if not now.readings.get("redis_available"):
        return "none"
    return "up" if now.value("redis_available") else "down"


def _breaker(now: ProcessSnapshot) -> str | None:
    states = [each for each in now.label_values("cache_breaker", "state") if now.value("cache_breaker", state=each)]
    return ", ".join(states) or None


def _span(seconds: float) -> str | None:
    if not seconds:
        return None
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m"), (1, "s")):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds * 1000:.3g} ms"


class _Screen(Protocol):
    def show(self, rows: Sequence[Sequence[object]]) -> None: ...


class _Plain:
    """Tables one after another, for terminals without rich."""

    def show(self, rows: Sequence[Sequence[object]]) -> None:
        Console().table("processes", COLUMNS, rows)


class _Live:
    """One table that is drawn anew."""

    def __init__(self, live: Any, table: Any) -> None:
        self._live = live
        self._table = table

    def show(self, rows: Sequence[Sequence[object]]) -> None:
        title = f"{len(rows)} processes at {datetime.now(UTC):%H:%M:%S} UTC; Ctrl-C ends" if rows else _NOBODY
        table = self._table(*COLUMNS, title=title, expand=True)
        for row in rows:
            table.add_row(*("" if each is None else str(each) for each in row), style=_style(row))
        self._live.update(table, refresh=True)


def _style(row: Sequence[object]) -> str | None:
    state: Mapping[str, object] = dict(zip(COLUMNS, row, strict=True))
    troubled = state["redis"] == "down" or state["breaker"] not in {None, "closed"} or state["journal"]
    return "bold red" if troubled else None


@contextmanager
def _screen(*, wanted: bool) -> Iterator[_Screen]:
    if wanted:
        try:
            # Optional: it comes with the "cli" extra.
            from rich.live import Live  # noqa: PLC0415
            from rich.table import Table  # noqa: PLC0415
        except ImportError:
            pass
        else:
            with Live(auto_refresh=False, screen=True) as live:
                yield _Live(live, Table)
            return
    yield _Plain()
