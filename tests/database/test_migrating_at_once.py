"""Databases that are migrated at the same time, by tasks and threads of one process."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from agent_service.infrastructure.database.engine import DatabaseManager


async def migrate(*paths: Path) -> list[bool]:
    databases = [DatabaseManager(f"sqlite+aiosqlite:///{path}") for path in paths]
    await asyncio.gather(*(each.prepare() for each in databases))
    states = [await each.check() for each in databases]
    for each in databases:
        await each.close()
    return [each.ok for each in states]


async def test_tasks_can_migrate_several_databases_at_once(tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.db" for number in range(6)]

    assert await migrate(*paths) == [True] * 6


def test_threads_with_loops_of_their_own_can_too(tmp_path: Path) -> None:
    def run(number: int) -> list[bool]:
        return asyncio.run(migrate(*(tmp_path / f"{number}-{each}.db" for each in range(3))))

    with ThreadPoolExecutor(4) as threads:
        done = list(threads.map(run, range(4)))

    assert done == [[True] * 3] * 4


async def test_who_is_cancelled_while_waiting_keeps_nobody_from_migrating(tmp_path: Path) -> None:
    databases = [DatabaseManager(f"sqlite+aiosqlite:///{tmp_path / f'{number}.db'}") for number in range(3)]
    tasks = [asyncio.create_task(each.prepare()) for each in databases]
    await asyncio.sleep(0)

    tasks[1].cancel()
    done = await asyncio.gather(*tasks, return_exceptions=True)
    await databases[1].prepare()
    states = [await each.check() for each in databases]
    for each in databases:
        await each.close()

    assert [type(each).__name__ for each in done] == ["NoneType", "CancelledError", "NoneType"]
    assert all(each.ok for each in states)
