"""What others do to the folder of a file store, or to its writers, keeps no other call waiting and leads nowhere."""

import asyncio
import fcntl
import os
import signal
import stat
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from agent_service.context.database import DatabaseContextStore
from agent_service.context.files.locks import LOCKS, digest
from agent_service.context.files.store import FileContextStore
from agent_service.context.outside_store import as_store
from agent_service.core.errors import ConfigurationError, ContextStoreError, StateStoreError
from agent_service.infrastructure.database.engine import DatabaseManager
from agent_service.state.file import FileStateStore
from agent_service.state.models import CoachContext
from tests.support.forked import Forked


@contextmanager
def stopped_writer(folder: Path, *how: str) -> Iterator[Forked]:
    """A process that was stopped while it wrote the key "a"."""
    with Forked("tests.context.locker", str(folder), *how) as writer:
        try:
            assert writer.stdout.readline() == b"holding\n"
            while psutil.Process(writer.pid).status() != psutil.STATUS_STOPPED:
                time.sleep(0.001)
            yield writer
        finally:
            with suppress(ProcessLookupError):
                os.killpg(writer.pid, signal.SIGKILL)


def lock_of(folder: Path, key: str) -> Path:
    return folder / LOCKS / f"{digest(key)[0] % 64:02}"


def another_key(key: str) -> str:
    """Return a key with another lock."""
    return next(each for each in "bcdefgh" if digest(each)[0] % 64 != digest(key)[0] % 64)


def modes(folder: Path) -> dict[str, int]:
    return {
        str(each.relative_to(folder)): stat.S_IMODE(each.lstat().st_mode) for each in folder.rglob("*") if each.exists()
    }


@contextmanager
def umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


async def test_a_stopped_writer_keeps_nobody_waiting_for_ever(tmp_path: Path):
    async with FileContextStore(tmp_path, timeout=2) as store, FileContextStore(tmp_path) as patient:
        await store.set_many({"a": {"n": 1}, another_key("a"): {"n": 2}})
        with stopped_writer(tmp_path) as writer:
            blocked = [asyncio.create_task(store.update("a", {str(n): n})) for n in range(40)]
            waiting = asyncio.create_task(patient.update("a", {"later": True}))
            await asyncio.sleep(0.1)

            # Neither reads, nor writes of other keys, nor the loop's own threads stand behind them.
            assert await asyncio.to_thread(lambda: "free") == "free"
            assert await store.get("a") == {"n": 1}
            assert await store.update(another_key("a"), {"n": 3}) == {"n": 3}
            assert sorted(await store.list_keys()) == sorted(["a", "warm", another_key("a")])
            failures = await asyncio.gather(*blocked, return_exceptions=True)
            assert {type(each) for each in failures} == {ContextStoreError}
            assert all(str(lock_of(tmp_path, "a")) in str(each) for each in failures)
            assert any("fuser" in str(each) for each in failures)
            writer.kill()

        assert await waiting in ({"n": 1, "later": True}, {"by": "the stopped one", "later": True})


async def test_who_can_open_a_lock_file_keeps_no_reader_waiting(tmp_path: Path):
    state = FileStateStore(tmp_path, model=CoachContext, timeout=0.8)
    saved = CoachContext(user_id="a")
    await state.save_context(saved)
    async with FileContextStore(tmp_path, timeout=0.8) as store:
        present = await store.get("a")
        with (tmp_path / LOCKS / lock_of(tmp_path, "a").name).open() as holder:
            fcntl.flock(holder, fcntl.LOCK_EX)
            for call in (store.set("a", {}), store.delete("a"), store.set_many({"a": {}, "b": {}, "c": {}})):
                with pytest.raises(ContextStoreError, match=r"was locked by another process for more than 0\.8 s"):
                    await call
            with pytest.raises(StateStoreError, match=r"\.locks"):
                await state.save_context(saved)
            assert await store.get_many("abc") == {"a": present}

        await store.set("a", {"n": 2})
        assert await store.get("a") == {"n": 2}


async def test_a_child_that_was_forked_in_the_middle_of_a_write_keeps_no_lock(tmp_path: Path):
    async with FileContextStore(tmp_path, timeout=30) as store:
        with stopped_writer(tmp_path, "fork") as writer:
            writer.kill()
            await writer.wait()

            await store.set("a", {"n": 1})

        assert await store.get("a") == {"n": 1}


@pytest.mark.parametrize("mask", [0, 0o077, 0o777], ids=oct)
async def test_folder_and_files_are_for_this_user_alone_whatever_the_umask(tmp_path: Path, mask: int):
    folder = tmp_path / "made" / "too" / "contexts"
    with umask(mask):
        async with FileContextStore(folder) as store:
            await store.set_many({"a": {}, "x" * 1000: {}})
            await store.update("a", {"n": 1})

    found = modes(tmp_path)
    assert {name: oct(mode) for name, mode in found.items()} == {
        name: oct(0o700 if (tmp_path / name).is_dir() else 0o600) for name in found
    }
    assert "made/too/contexts/a.json" in found


async def test_a_folder_of_this_user_is_closed_to_others(tmp_path: Path):
    folder = tmp_path / "contexts"
    folder.mkdir()
    folder.chmod(0o777)
    (folder / "a.json").write_text('{"n":1}\n')
    (folder / "a.json").chmod(0o644)
    async with FileContextStore(folder) as store:
        assert await store.get("a") == {"n": 1}

        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        await store.update("a", {})
    assert stat.S_IMODE((folder / "a.json").stat().st_mode) == 0o600


async def test_a_folder_made_for_everybody_is_refused_and_stays_as_it_is(tmp_path: Path):
    folder = tmp_path / "tmp"
    folder.mkdir()
    folder.chmod(0o1777)
    async with FileContextStore(folder) as store, FileContextStore(folder / "own") as own:
        for call in (store.get("a"), store.set("a", {}), store.delete("a"), store.list_keys()):
            with pytest.raises(ContextStoreError, match="make a folder of its own in it"):
                await call
        await own.set("a", {})
    assert [each.name for each in folder.iterdir()] == ["own"]
    assert stat.S_IMODE(folder.stat().st_mode) == 0o1777


class PathOfBytes:
    def __fspath__(self) -> bytes:
        return b"contexts"


@pytest.mark.parametrize("wrong", ["a\0b", "a\ud800b", PathOfBytes(), b"contexts", 5, None])
def test_a_path_that_is_none_is_refused(wrong: Any):
    with pytest.raises(ConfigurationError, match="directory must be a path"):
        FileContextStore(wrong)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a folder another user's")
async def test_a_folder_of_another_user_that_everybody_can_write_to_is_refused(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    folder = tmp_path / "contexts"
    folder.mkdir()
    os.chown(folder, 12345, 12345)
    folder.chmod(0o777)
    async with FileContextStore(folder) as store:
        for call in (store.get("a"), store.set("a", {}), store.list_keys()):
            with pytest.raises(ContextStoreError, match="everybody can write to it") as caught:
                await call
            assert isinstance(caught.value.__cause__, ConfigurationError)
        assert list(folder.iterdir()) == []
        folder.chmod(0o770)
        await store.set("a", {})
        await store.get("a")

    assert [each.message for each in caplog.records if "its group can write" in each.message] == [
        f"{folder} belongs to another user and its group can write to it (mode 0770): all of it can replace what is kept there"  # noqa: E501
    ]


async def test_no_link_in_the_folder_is_followed(tmp_path: Path):
    folder, victim = tmp_path / "contexts", tmp_path / "victim"
    victim.write_text('{"secret":1}\n')
    folder.mkdir(0o700)
    (folder / ".a.unfinished").symlink_to(victim)
    (folder / "a.json").symlink_to(victim)
    (folder / "b.json").symlink_to(victim)
    (folder / "c.json").hardlink_to(victim)
    os.mkfifo(folder / "pipe.json")
    async with FileContextStore(folder, timeout=20) as store:
        await store.set("a", {"n": 1})
        await store.update("c", {"n": 2})
        for key in ("b", "pipe"):
            with pytest.raises(ContextStoreError, match=f"{key}.json is a link or no regular file"):
                await store.get(key)

    assert victim.read_text() == '{"secret":1}\n'
    assert (folder / "a.json").read_text() == '{"n":1}\n'
    assert not (folder / "a.json").is_symlink()


@pytest.mark.parametrize("name", [LOCKS, f"{LOCKS}/{digest('a')[0] % 64:02}"])
async def test_locks_that_lead_elsewhere_are_refused(tmp_path: Path, name: str):
    folder, elsewhere = tmp_path / "contexts", tmp_path / "elsewhere"
    folder.mkdir(0o700)
    if "/" in name:
        (folder / LOCKS).mkdir(0o700)
    else:
        elsewhere.mkdir()
    (folder / name).symlink_to(elsewhere)
    async with FileContextStore(folder) as store:
        with pytest.raises(ContextStoreError) as caught:
            await store.set("a", {})

    assert isinstance(caught.value.__cause__, OSError)
    assert not elsewhere.exists() or list(elsewhere.iterdir()) == []


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts open files")
@pytest.mark.parametrize("contended", [False, True])
async def test_a_write_can_be_cancelled_at_every_await(tmp_path: Path, contended: bool):
    async with FileContextStore(tmp_path) as store:
        await store.set("a", {"n": 0})
        before, steps = open_files(), 0
        while True:
            holder = asyncio.create_task(store.update("a", {"other": True})) if contended else None
            task = asyncio.create_task(store.set("a", {"n": steps + 1}))
            for _ in range(steps):
                await asyncio.sleep(0)
                if task.done():
                    break
            task.cancel()
            await asyncio.wait({task})
            content = (tmp_path / "a.json").read_bytes()
            await asyncio.sleep(0)
            if holder is not None:
                await holder

            assert contended or (tmp_path / "a.json").read_bytes() == content
            document = await store.get("a")
            assert document is not None
            assert document["n"] in range(steps + 2)
            assert open_files() == before
            if not task.cancelled() or steps > 300:
                break
            steps += 1 if steps < 30 else 10
        await store.set("a", {"n": -1})
        assert await store.get("a") == {"n": -1}
        assert sorted(modes(tmp_path).keys() - {f"{LOCKS}/{lock_of(tmp_path, 'a').name}"}) == [LOCKS, "a.json"]


def test_a_write_whose_event_loop_ended_keeps_its_lock_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    begun, go_on, fsync = threading.Event(), threading.Event(), os.fsync

    def slow(descriptor: int) -> None:
        begun.set()
        go_on.wait(60)
        fsync(descriptor)

    async def leave(store: FileContextStore) -> None:
        running.append(asyncio.get_running_loop().create_task(store.set("a", {"by": "the first"})))
        while not begun.is_set():
            await asyncio.sleep(0.001)

    running: list[asyncio.Task[None]] = []
    first, second = FileContextStore(tmp_path), FileContextStore(tmp_path, timeout=0.3)
    asyncio.run(second.set("a", {}))
    monkeypatch.setattr(os, "fsync", slow)
    loop = asyncio.new_event_loop()
    loop.run_until_complete(leave(first))
    monkeypatch.setattr(os, "fsync", fsync)
    with suppress(RuntimeError):
        running[0].get_coro().close()  # as the interpreter does with what a loop left
    with pytest.raises(ContextStoreError, match="another process"):
        asyncio.run(second.set("a", {"by": "the second"}))
    go_on.set()
    patient = FileContextStore(tmp_path, timeout=60)
    asyncio.run(patient.update("a", {"and": "the second"}))

    assert asyncio.run(patient.get("a")) == {"by": "the first", "and": "the second"}
    with suppress(RuntimeError):  # it was closed already
        loop.run_until_complete(running[0])
    loop.close()


async def test_a_disk_that_does_not_answer_is_an_error_of_the_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    answer = threading.Event()

    async with FileContextStore(tmp_path, timeout=0.3) as store:
        await store.set("a", {})
        with monkeypatch.context() as patch:
            patch.setattr(os, "read", lambda *_: answer.wait(60) and b"")
            for _ in range(6):
                with pytest.raises(ContextStoreError, match=r"could not be read within 0\.3 s"):
                    await store.get("a")
            assert await asyncio.to_thread(lambda: "free") == "free"
            answer.set()


@pytest.mark.parametrize("wrong", [0, -1, None, "10", True, float("inf"), float("nan")])
def test_a_timeout_that_is_none_is_refused(tmp_path: Path, wrong: Any):
    for make in (FileContextStore, FileStateStore):
        with pytest.raises(ConfigurationError, match="timeout must be a number of seconds above 0, got "):
            make(tmp_path, timeout=wrong)


async def test_plain_methods_of_others_that_hang_leave_the_loops_threads_free():
    released = threading.Event()

    class Hanging:
        def get(self, key: str) -> None:
            released.wait(60)

        def set(self, key: str, value: object) -> None:
            pass

        def delete(self, key: str) -> None:
            pass

    store = as_store(Hanging())
    calls = [asyncio.create_task(store.get(f"{n}")) for n in range(50)]
    await asyncio.sleep(0.1)
    try:
        async with asyncio.timeout(30):
            assert await asyncio.to_thread(lambda: "free") == "free"
    finally:
        released.set()
        await asyncio.gather(*calls)


@pytest.mark.parametrize("place", ["plain", "uri", "link", "readonly"])
async def test_an_sqlite_file_and_those_beside_it_are_for_this_user_alone(tmp_path: Path, place: str):
    path = tmp_path / "made.db"
    name = {"uri": f"file:{path}?uri=true", "readonly": f"file:{path}?mode=ro&uri=true"}.get(place, str(path))
    if place == "link":
        (tmp_path / "link.db").symlink_to(path)
        name = str(tmp_path / "link.db")
    with umask(0):
        manager = DatabaseManager(f"sqlite+aiosqlite:///{name}")
        try:
            if place == "readonly":
                assert (await manager.health_check())["ok"] is False
                assert modes(tmp_path) == {}
                return
            await manager.prepare()
            found = modes(tmp_path)
        finally:
            await manager.close()

    found.pop("link.db", None)
    assert "made.db-wal" in found
    assert {name: oct(mode) for name, mode in found.items()} == dict.fromkeys(found, oct(0o600))


async def test_an_sqlite_file_that_others_may_open_stays_as_it_is_and_is_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    path = tmp_path / "context.db"
    path.touch(0o640)
    path.chmod(0o640)
    async with DatabaseContextStore(path) as store:
        await store.set("a", {})
        await asyncio.gather(*(store.get("a") for _ in range(5)))

    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert [each.message for each in caplog.records if "other users" in each.message] == [
        f"other users may open the SQLite file {path} (mode 0640); run: chmod go= {path}*"
    ]


def test_reads_from_many_threads_with_loops_of_their_own_work(tmp_path: Path):
    store = FileContextStore(tmp_path)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: asyncio.run(store.update("a", {f"field{n}": n})), range(32)))
        found = list(pool.map(lambda _: asyncio.run(store.get("a")), range(32)))

    assert found == [{f"field{n}": n for n in range(32)}] * 32


@pytest.mark.parametrize("kind", ["context", "state"])
async def test_a_store_that_is_closed_has_no_thread_left_and_can_be_used_again(tmp_path: Path, kind: str):
    before = set(threading.enumerate())

    def threads() -> list[threading.Thread]:
        return [each for each in set(threading.enumerate()) - before if each.name.startswith("file-store")]

    store: Any = FileContextStore(tmp_path) if kind == "context" else FileStateStore(tmp_path, model=CoachContext)
    for _ in range(2):
        if kind == "context":
            await store.update("a", {})
            await store.get("a")
        else:
            await store.load_context("a")
        assert threads()
        await store.aclose()
        async with asyncio.timeout(30):
            while threads():
                await asyncio.sleep(0.01)
