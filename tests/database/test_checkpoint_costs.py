"""What statements about one thread read does not grow with other threads, also where nobody ran ANALYZE."""

from collections.abc import Callable, Iterator
from typing import Any

from sqlalchemy import Connection, text

from agent_service.infrastructure.database.checkpoints import ancestry, pruning, reading, spaces, threads
from agent_service.infrastructure.database.checkpoints.changes import Change
from agent_service.infrastructure.database.checkpoints.reading import Question, read_page
from agent_service.infrastructure.database.checkpoints.statements import Statement
from agent_service.infrastructure.database.checkpoints.writing import write_changes
from agent_service.infrastructure.database.engine import DatabaseManager
from tests.database.checkpoint_writer import checkpoint, writes

THREADS, COPIES = 4000, 100
_READ = """
SELECT sum(coalesce(seq_tup_read, 0) + coalesce(idx_tup_fetch, 0)) FROM pg_stat_xact_user_tables
WHERE relname LIKE 'agent_service_checkpoint%'
"""


def statements() -> Iterator[tuple[str, Statement]]:
    """Return every statement about threads that are named."""
    for module in (ancestry, pruning, reading, spaces, threads):
        for name, given in vars(module).items():
            for each in given if isinstance(given, tuple) else (given,):
                if isinstance(each, Statement):
                    yield f"{module.__name__}.{name}", each
    for known in (("thread_id",), ("thread_id", "namespace"), ("thread_id", "namespace", "checkpoint_id")):
        for continued in (False, True):
            yield f"page of {known}", reading._statement(known, 1, continued)


async def test_sqlite_finds_everything_by_more_than_the_tenant(sqlite_url: str) -> None:
    database = DatabaseManager(sqlite_url)
    await database.prepare()
    wide: dict[str, list[str]] = {}

    def explain(connection: Connection) -> None:
        for name, statement in statements():
            places = {f"p{number}": None for number in range(1, 13)}
            plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement._sqlite}", places)
            lines = [str(row[3]) for row in plan if str(row[3]).endswith("(tenant_id=?)")]
            if lines:
                wide[name] = lines

    async with database.session() as db:
        await (await db.connection()).run_sync(explain)
    await database.close()

    assert wide == {}


WORK: dict[str, Callable[[Connection], Any]] = {
    "read": lambda connection: read_page(connection, "", Question("thread 7", ""), 1),
    "remove runs": lambda connection: pruning.remove_runs(connection, "", "thread 7", ["run 7"]),
    "prune a copy": lambda connection: pruning.keep_latest(connection, "", "copy 8"),
    "remove a copy": lambda connection: threads.remove_threads(connection, "", ["copy 9"]),
    "remove": lambda connection: threads.remove_threads(connection, "", ["thread 1010"]),
}


async def test_postgres_reads_rows_of_the_threads_that_are_named(postgres_url: str) -> None:
    database = DatabaseManager(postgres_url)
    await fill(database)
    await database.engine.dispose()  # plans that were made when the tables were empty
    read: dict[str, int] = {}
    async with database.session() as db:
        connection = await db.connection()
        before = int(await db.scalar(text(_READ)) or 0)
        for name, work in WORK.items():
            assert await connection.run_sync(work), name
            after = int(await db.scalar(text(_READ)) or 0)
            read[name], before = after - before, after
    await database.close()

    assert {name: rows for name, rows in read.items() if rows > THREADS / 2} == {}


async def fill(database: DatabaseManager) -> None:
    """Make threads of two checkpoints, and copies of some; nobody analyzes them."""
    changes: list[Change] = []
    for number in range(THREADS):
        name = f"thread {number}"
        for step, parent in ((0, None), (1, "00")):
            at, run = f"{step:02}", f"run {number}"
            changes.append(checkpoint(name, at, parent, {"state": b"value"}, run_id=run))
            changes.append(writes(name, at, "task", b"written"))
    async with database.session() as db:
        await write_changes(db, changes)
        connection = await db.connection()
        for number in range(COPIES):
            await connection.run_sync(threads.copy_thread, "", f"thread {number}", f"copy {number}")
