"""Threads of checkpoints: shared values, removal, retention, tenants, crashes. On both engines."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import ExitStack
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import text, update

from agent_service.core.clock import SYSTEM_CLOCK
from agent_service.core.errors import DatabaseError, DatabaseUnavailableError, SessionConflictError, SessionValueError
from agent_service.infrastructure.database import cleanup_once, erase_user
from agent_service.infrastructure.database.checkpoints.changes import Change, Encoded, NewCheckpoint
from agent_service.infrastructure.database.checkpoints.channels import (
    MAX_CHANNEL,
    index_name,
    read_versions,
    write_versions,
)
from agent_service.infrastructure.database.checkpoints.reading import Question, StoredCheckpoint
from agent_service.infrastructure.database.checkpoints.store import CheckpointStore
from agent_service.infrastructure.database.checkpoints.writing import write_changes
from agent_service.infrastructure.database.engine import DatabaseManager
from agent_service.infrastructure.database.maintenance import CleanupMetrics, purge_threads, run_cleanup
from agent_service.infrastructure.database.models.checkpoint import CheckpointThread
from agent_service.infrastructure.database.naming.names import FRAMEWORKS
from agent_service.infrastructure.database.repositories import SessionRepository
from tests.database.checkpoint_writer import checkpoint, writes
from tests.support.forked import Forked
from tests.support.waiting import until


@pytest.fixture
async def store(database: DatabaseManager) -> AsyncIterator[CheckpointStore]:
    """An open store."""
    opened = await CheckpointStore.open(database)
    yield opened
    await opened.close()


async def latest(store: CheckpointStore, thread: str, tenant: str = "") -> StoredCheckpoint | None:
    found = await store.page(tenant, Question(thread, ""), 1)
    return found[0] if found else None


async def values(store: CheckpointStore, thread: str, name: str | None = None) -> dict[str, bytes]:
    (found,) = await store.page("", Question(thread, "", name), 1)
    return {channel: value.value for channel, value in found.values.items()}


async def rows(database: DatabaseManager) -> dict[str, int]:
    async with database.session() as db:
        return {
            table: int(await db.scalar(text(f"SELECT count(*) FROM agent_service_{table}")) or 0)
            for table in FRAMEWORKS
            if table.startswith("checkpoint")
        }


async def let_pass(database: DatabaseManager, thread: str) -> None:
    """Have a thread be idle for eight days."""
    async with database.session() as db:
        moved = update(CheckpointThread).where(CheckpointThread.thread_id == thread)
        await db.execute(moved.values(active_at=SYSTEM_CLOCK.now() - timedelta(days=8)))


async def fill(store: CheckpointStore, thread: str, steps: int, first: int = 0) -> None:
    """Save steps, each with a value of ``state``; ``other`` has one for all."""
    for step in range(first, first + steps):
        parent = None if step == 0 else f"{step - 1:02}"
        given = {"state": b"%d of %s" % (step, thread.encode())} | ({"other": b"same"} if step == 0 else {})
        versions = {"state": f"v{step}", "other": "v0"}
        await store.write("", checkpoint(thread, f"{step:02}", parent, given, versions=versions))
        await store.write("", writes(thread, f"{step:02}", "task", b"written"))


async def test_values_are_copied_by_no_copy_and_removed_with_the_last_who_reads_them(
    store: CheckpointStore, database: DatabaseManager
) -> None:
    await fill(store, "source", 3)
    before = await rows(database)

    assert await store.copy("", "source", "copy")
    assert await store.copy("", "copy", "copy of the copy")
    copied = await rows(database)
    assert copied["checkpoint_blobs"] == before["checkpoint_blobs"] == 4
    assert copied["checkpoints"] == 9
    assert await values(store, "copy of the copy") == {"state": b"2 of source", "other": b"same"}

    await store.remove("", ["source"])
    assert await values(store, "copy", "01") == {"state": b"1 of source", "other": b"same"}
    await store.remove("", ["copy", "copy of the copy"])
    assert set((await rows(database)).values()) == {0}


async def test_source_and_copy_write_the_same_versions_apart(store: CheckpointStore) -> None:
    await fill(store, "source", 2)
    await store.copy("", "source", "copy")

    await fill(store, "source", 1, first=2)
    await fill(store, "copy", 1, first=2)
    await store.write("", checkpoint("copy", "01", "00", {"state": b"another"}, versions={"state": "v1"}))

    assert await values(store, "source") == {"state": b"2 of source", "other": b"same"}
    assert await values(store, "copy") == {"state": b"2 of copy", "other": b"same"}
    assert await values(store, "source", "01") == {"state": b"1 of source", "other": b"same"}
    assert await values(store, "copy", "01") == {"state": b"another"}


async def test_a_thread_that_is_copied_again_and_again_shares_few_spaces(
    store: CheckpointStore, database: DatabaseManager
) -> None:
    await fill(store, "source", 1)
    for number in range(40):
        await store.copy("", "source", f"copy {number}")
        given = {"state": b"%d" % number}
        await store.write(
            "", checkpoint("source", f"1{number:02}", None, given, versions={"state": "v", "other": "v0"})
        )

    async with database.session() as db:
        most = (
            "SELECT max(n) FROM (SELECT count(*) AS n FROM agent_service_checkpoint_shares GROUP BY thread) AS counted"
        )
        assert int(await db.scalar(text(most)) or 0) <= 32
    assert await values(store, "source") == {"state": b"39", "other": b"same"}
    assert await values(store, "copy 39") == {"state": b"38", "other": b"same"}
    await store.keep_latest("", ["source"])
    assert await values(store, "source") == {"state": b"39", "other": b"same"}
    await store.remove("", ["source", *(f"copy {number}" for number in range(40))])
    assert set((await rows(database)).values()) == {0}


async def test_a_copy_of_nothing_or_onto_something_changes_nothing(
    store: CheckpointStore, database: DatabaseManager
) -> None:
    await fill(store, "source", 1)
    await fill(store, "target", 1)
    before = await rows(database)

    assert not await store.copy("", "missing", "other")
    for target in ("target", "source"):
        with pytest.raises(SessionConflictError, match="exists"):
            await store.copy("", "source", target)

    assert await rows(database) == before


async def test_pruning_leaves_no_value_that_nobody_reads(store: CheckpointStore, database: DatabaseManager) -> None:
    await fill(store, "thread", 5)
    await store.copy("", "thread", "copy")

    assert await store.keep_latest("", ["thread", "thread", "missing"]) == 4
    assert await values(store, "thread") == {"state": b"4 of thread", "other": b"same"}
    assert (found := await latest(store, "thread")) is not None
    assert found.parent_id is None
    await store.remove("", ["copy"])

    assert await rows(database) == {
        "checkpoint_threads": 1,
        "checkpoint_shares": 0,
        "checkpoints": 1,
        "checkpoint_blobs": 2,
        "checkpoint_writes": 1,
    }


async def test_a_chain_that_is_longer_than_a_page_is_rebuilt_and_kept(store: CheckpointStore) -> None:
    length = 1205
    seed = checkpoint("thread", "0000", None, {"log": b"seed"}, versions={"log": "v0"})
    changes: list[Any] = [seed, writes("thread", "0000", "task", b"0000", channel="log")]
    for number in range(1, length):
        name = f"{number:04}"
        options: Any = {"versions": {"log": f"v{number}"}, "replayed": ["log"]}
        changes.append(checkpoint("thread", name, f"{number - 1:04}", {}, **options))
        changes.append(writes("thread", name, "task", name.encode(), channel="log"))
    await asyncio.gather(*(store.write("", each) for each in changes))

    found = (await store.histories("", ("thread", ""), None, ["log", "none"]))["log"]
    assert found.seed == Encoded("raw", b"seed")
    assert [write.value.value for write in found.writes] == [f"{number:04}".encode() for number in range(length - 1)]
    assert await store.keep_latest("", ["thread"]) == 0

    snapshot = checkpoint("thread", f"{length:04}", f"{length - 1:04}", {"log": b"all"}, versions={"log": "vx"})
    await store.write("", snapshot)
    assert await store.keep_latest("", ["thread"]) == length


async def test_two_who_let_go_of_shared_values_at_once_leave_nothing(
    store: CheckpointStore, database: DatabaseManager
) -> None:
    names = [f"thread {number}" for number in range(6)]
    for _ in range(3):
        await fill(store, names[0], 2)
        for name in names[1:]:
            await store.copy("", names[0], name)

        await asyncio.gather(*(store.remove("", [name]) for name in names))

        assert set((await rows(database)).values()) == {0}


async def test_a_transaction_of_the_callers_writes_all_or_nothing(
    store: CheckpointStore, database: DatabaseManager
) -> None:
    changes: list[Change] = [checkpoint("thread", "00", None, {"state": b"1"}), writes("thread", "00", "task", b"2")]
    async with database.session() as db:
        await write_changes(db, changes)
        await db.rollback()
    assert set((await rows(database)).values()) == {0}

    async with database.session() as db:
        await write_changes(db, [])
        await write_changes(db, changes)
        await write_changes(db, changes)

    assert await values(store, "thread") == {"state": b"1"}


async def test_whoever_waits_for_a_thread_keeps_other_threads_going(postgres_url: str) -> None:
    database = DatabaseManager(postgres_url)
    store = await CheckpointStore.open(database)
    await fill(store, "held", 1)
    async with database.session() as db:
        await write_changes(db, [checkpoint("held", "01", "00", {})])
        waiting = asyncio.create_task(store.write("", checkpoint("held", "02", "01", {})))
        await asyncio.gather(
            *(store.write(f"tenant {number}", checkpoint("free", "00", None, {})) for number in range(8))
        )
        assert not waiting.done()
    await waiting
    await store.close()
    await database.close()


async def test_one_refused_change_fails_alone(store: CheckpointStore, database: DatabaseManager) -> None:
    good = [checkpoint(f"thread {number}", "00", None, {"state": b"1"}) for number in range(5)]
    bad = checkpoint("bad", "00", None, {"state": b"1"})
    object.__setattr__(bad, "document", Encoded("raw", None))  # type: ignore[arg-type]

    object.__setattr__(bad, "values", {})
    results = await asyncio.gather(*(store.write("", each) for each in [*good, _Sized(bad)]), return_exceptions=True)

    assert results[:5] == [None] * 5
    assert isinstance(results[5], DatabaseError)
    assert (await rows(database))["checkpoints"] == 5


class _Sized(NewCheckpoint):
    """A change whose size can be asked for, whatever is in it."""

    size = 1

    def __init__(self, other: NewCheckpoint) -> None:
        for name in NewCheckpoint.__slots__:
            object.__setattr__(self, name, getattr(other, name))


async def test_a_lost_connection_is_replaced_and_the_write_repeated(postgres_url: str) -> None:
    database = DatabaseManager(postgres_url)
    store = await CheckpointStore.open(database)
    await fill(store, "thread", 1)
    ended = (
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = current_database() "
        "AND pid <> pg_backend_pid()"
    )
    async with database.session() as db:
        assert await db.scalar(text(ended))

    await fill(store, "thread", 1, first=1)

    assert await values(store, "thread") == {"state": b"1 of thread", "other": b"same"}
    await store.close()
    await database.close()


async def test_a_write_gives_up_in_time_and_a_closed_store_refuses(postgres_url: str) -> None:
    database = DatabaseManager(postgres_url)
    store = await CheckpointStore.open(database, timeout=0.3)
    async with database.session() as db:
        await write_changes(db, [checkpoint("held", "00", None, {})])
        with pytest.raises(DatabaseUnavailableError, match=r"within 0\.3 s"):
            await store.write("", checkpoint("held", "01", None, {}))
    await store.close()
    with pytest.raises(Exception, match="closed"):
        await store.write("", checkpoint("held", "01", None, {}))
    await database.close()


async def test_idle_threads_go_and_others_stay(store: CheckpointStore, database: DatabaseManager) -> None:
    await fill(store, "old", 3)
    await store.copy("", "old", "copy")
    await store.write("acme", checkpoint("old", "00", None, {"state": b"1"}))
    await let_pass(database, "old")

    kept = await cleanup_once(purge_threads_after=timedelta(days=9), database=database)
    assert kept.purged_threads == 0
    done = await cleanup_once(purge_threads_after=timedelta(days=7), database=database)

    assert done.purged_threads == 2
    assert await values(store, "copy") == {"state": b"2 of old", "other": b"same"}
    assert await latest(store, "old") is None
    assert await latest(store, "old", "acme") is None
    assert await purge_threads(database, SYSTEM_CLOCK.now() + timedelta(minutes=11)) == 1
    assert set((await rows(database)).values()) == {0}


async def test_writing_to_an_idle_thread_keeps_it(store: CheckpointStore, database: DatabaseManager) -> None:
    await fill(store, "thread", 1)
    await let_pass(database, "thread")

    await fill(store, "thread", 1, first=1)

    assert (await cleanup_once(purge_threads_after=timedelta(days=7), database=database)).purged_threads == 0


async def test_a_copy_of_an_idle_thread_is_not_idle(store: CheckpointStore, database: DatabaseManager) -> None:
    await fill(store, "idle", 1)
    await let_pass(database, "idle")
    await store.copy("", "idle", "copy")

    assert await purge_threads(database, timedelta(days=7)) == 1
    assert await values(store, "copy") == {"state": b"0 of idle", "other": b"same"}


@given(names=st.sets(st.sampled_from(["a", "é", "join:"]).flatmap(lambda one: st.just(one * 500) | st.just(one))))
def test_versions_come_back_whatever_the_length_of_names(names: set[str]) -> None:
    versions = {name: f"version {number}" for number, name in enumerate(sorted(names))}
    found = read_versions(write_versions(versions))

    assert {name: version for name, (_, version) in found.items()} == versions
    assert all(named == index_name(name) and len(named.encode()) <= MAX_CHANNEL for name, (named, _) in found.items())


async def test_channels_with_long_names_are_read_copied_and_pruned(store: CheckpointStore) -> None:
    long = {"join:" + "node+" * 300: b"1", "join:" + "node+" * 300 + "x": b"2", "short": b"3"}
    await store.write("", checkpoint("thread", "00", None, long))
    await store.write("", checkpoint("thread", "01", "00", long))
    await store.write("", writes("thread", "01", "task", b"written", channel=max(long, key=len)))
    await store.copy("", "thread", "copy")
    await store.keep_latest("", ["thread", "copy"])

    for name in ("thread", "copy"):
        found = await latest(store, name)
        assert found is not None
        assert {channel: value.value for channel, value in found.values.items()} == long
        assert [write.channel for write in found.writes] == [max(long, key=len)]


async def test_the_schedule_counts_what_it_removed(store: CheckpointStore, database: DatabaseManager) -> None:
    await fill(store, "thread", 1)
    await let_pass(database, "thread")
    metrics = CleanupMetrics()

    job = run_cleanup(interval=60, purge_threads_after=timedelta(days=7), metrics=metrics, database=database)
    running = asyncio.create_task(job)
    await until(lambda: metrics.last_success)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)

    assert metrics.purged_threads == 1
    with pytest.raises(SessionValueError, match="purge_threads_after"):
        await cleanup_once(purge_threads_after=timedelta(-1), database=database)


@pytest.mark.parametrize("at_once", [True, False])
async def test_an_erased_user_loses_all_threads(
    store: CheckpointStore, database: DatabaseManager, at_once: bool
) -> None:
    for number in range(55):
        await store.write("", checkpoint(f"{number}", "00", None, {"state": b"1"}, user_id="ada"))
    await store.write("", checkpoint("0", "01", "00", {"state": b"1"}, user_id="bob"))
    await store.write("", checkpoint("of bob", "00", None, {"state": b"1"}, user_id="bob"))
    await store.write("acme", checkpoint("0", "00", None, {"state": b"1"}, user_id="ada"))

    if at_once:
        async with database.session() as db:
            await SessionRepository(db).erase_user("ada")
    else:
        await erase_user(database, "ada")

    assert (await rows(database))["checkpoint_threads"] == 2
    assert await latest(store, "of bob") is not None
    assert await latest(store, "0", "acme") is not None


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"thread_id": ""}, "thread_id must not be empty"),
        ({"thread_id": "x" * 1001}, "thread_id must have at most 1000 bytes"),
        ({"thread_id": 7}, "thread_id must be a string"),
        ({"namespace": "a\x00b"}, "namespace holds U"),
        ({"checkpoint_id": "\ud800"}, "checkpoint_id holds a lone surrogate"),
        ({"parent_id": ""}, "parent_id must not be empty"),
        ({"versions": {"": "1"}}, "channel must not be empty"),
        ({"versions": {"a" * 401: "1"}, "replayed": ["a" * 401]}, "replayed has a channel of 401 bytes"),
        ({"versions": {"a": "1" * 300}}, "version must have at most 255"),
        ({"values": {"b": Encoded("raw", b"")}}, "no version"),
        ({"facts": {"a": "\x00"}}, r"facts\['a'\]"),
    ],
)
def test_what_cannot_be_stored_is_named_before_anything_is_sent(options: dict[str, Any], named: str) -> None:
    good: dict[str, Any] = {
        "thread_id": "thread", "namespace": "", "checkpoint_id": "00", "parent_id": None,
        "document": Encoded("raw", b""), "metadata": Encoded("raw", b""), "versions": {"a": "1"}, "values": {},
    }  # fmt: skip
    with pytest.raises(SessionValueError, match=named):
        NewCheckpoint(**{**good, **options})


async def test_what_was_committed_survives_a_kill_beside_another_process(
    store: CheckpointStore, database_url: str
) -> None:
    acknowledged: list[tuple[str, str]] = []
    with ExitStack() as stack:
        processes = [
            stack.enter_context(await Forked.start("tests.database.checkpoint_writer", database_url, name, "4", "400"))
            for name in ("a", "b")
        ]
        for turn in range(120):
            line = await asyncio.to_thread(processes[turn % 2].stdout.readline)
            thread, name = line.decode().strip().split("|")
            acknowledged.append((thread, name))
        for each in processes:
            os.kill(each.pid, signal.SIGKILL)
        for each in processes:
            await each.wait()

    for thread, name in acknowledged:
        assert await values(store, thread, name) == {"state": name.encode() * 50, "other": name.encode()}
    stored = [found for number in range(4) for found in await store.page("", Question(f"thread {number}"), 10_000)]
    assert len(stored) >= len(acknowledged)
    known = {(found.thread_id, found.checkpoint_id): found for found in stored}
    for (thread, name), found in known.items():
        own = {"state": name.encode() * 50, "other": name.encode()}
        assert {channel: value.value for channel, value in found.values.items()} == own
        if found.parent_id is not None:
            parent = known[thread, found.parent_id]
            assert [write.value.value for write in parent.writes] == [name.encode()]
