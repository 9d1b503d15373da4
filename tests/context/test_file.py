"""The file backend keeps the contract, stays in its folder, and survives a kill at any moment."""

import asyncio
import json
import os
import random
import threading
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from agent_service.context.database import DatabaseContextStore
from agent_service.context.files.store import FileContextStore
from agent_service.core.errors import ConfigurationError, ContextStoreError
from agent_service.state.file import FileStateStore
from agent_service.testing.context_contracts import DISTINCT_KEYS, HOSTILE_KEYS, ContextStoreContract
from tests.context.processes import updates_from_processes
from tests.support.forked import Forked


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[FileContextStore]:
    async with FileContextStore(tmp_path / "made" / "contexts") as store:
        yield store


class TestFileContextStore(ContextStoreContract):
    pass


def test_no_key_leaves_the_folder_or_makes_a_name_that_differs_by_case(tmp_path: Path):
    store = FileContextStore(tmp_path / "made" / "contexts")
    asyncio.run(store.set_many({key: {} for key in [*HOSTILE_KEYS, *DISTINCT_KEYS]}))

    files = [each for each in (tmp_path / "made" / "contexts").iterdir() if each.is_file()]
    everything = {each for each in tmp_path.rglob("*") if each.is_file()}
    assert len({each.name.lower() for each in files}) == len(files)
    assert {each.parent.name for each in everything} == {"contexts", ".locks"}
    assert all(len(each.name) < 255 for each in files)


async def test_a_file_can_be_read_by_people(store: FileContextStore, tmp_path: Path):
    await store.set("session-1", {"user_name": "alice"})

    content = (tmp_path / "made" / "contexts" / "session-1.json").read_text()

    assert content == '{"user_name":"alice"}\n'


async def test_every_file_is_one_document_of_json(store: FileContextStore, tmp_path: Path):
    await store.set_many({key: {"at": datetime(2026, 1, 2, tzinfo=UTC), "n": 10**40} for key in HOSTILE_KEYS})

    for path in (tmp_path / "made" / "contexts").glob("*.json"):
        assert isinstance(json.loads(path.read_bytes()), dict)


async def test_a_file_that_a_person_has_laid_out_anew_is_read(store: FileContextStore, tmp_path: Path):
    value = {"user_name": "alice", "big": 10**40, "at": datetime(2026, 1, 2, tzinfo=UTC), "half": 0.5}
    await store.set_many({"a": value, "x" * 1_000: value})
    for path in (tmp_path / "made" / "contexts").glob("*.json"):
        path.write_text(json.dumps(json.loads(path.read_bytes()), indent=2) + "\n")

    assert await store.get_many(["a", "x" * 1_000]) == {"a": value, "x" * 1_000: value}
    assert sorted(await store.list_keys()) == ["a", "x" * 1_000]


async def test_files_of_the_first_release_are_read_listed_and_replaced(store: FileContextStore, tmp_path: Path):
    folder = tmp_path / "made" / "contexts"
    folder.mkdir(parents=True)
    long = "x" * 1_000
    (folder / "session-1.json").write_text('"session-1"\n{"user_name":"alice"}\n')
    store.path_of(long).write_text(f'"{long}"\n{{"n":1}}\n')

    assert sorted(await store.list_keys()) == ["session-1", long]
    assert await store.get_many(["session-1", long]) == {"session-1": {"user_name": "alice"}, long: {"n": 1}}
    assert await store.update("session-1", {"n": 2}) == {"user_name": "alice", "n": 2}
    assert (folder / "session-1.json").read_text() == '{"user_name":"alice","n":2}\n'


@pytest.mark.parametrize("value", [{"$file": {"key": "b", "document": {}}}, {"$file": 1}, {"$tuple": [1]}], ids=repr)
async def test_no_value_is_taken_for_the_key_of_a_file(store: FileContextStore, value: dict[str, Any]):
    await store.set_many({"a": value, "x" * 1_000: value})

    assert await store.get_many(["a", "x" * 1_000]) == {"a": value, "x" * 1_000: value}
    assert sorted(await store.list_keys()) == ["a", "x" * 1_000]


async def test_a_cancelled_write_is_over_before_the_cancellation_arrives(
    store: FileContextStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    await store.set("a", {"v": "old"})
    begun, go_on = threading.Event(), threading.Event()
    fsync = os.fsync

    def slow(descriptor: int) -> None:
        begun.set()
        go_on.wait(30)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", slow)
    writing = asyncio.create_task(store.set("a", {"v": "new"}))
    await asyncio.to_thread(begun.wait, 30)
    writing.cancel()
    await asyncio.sleep(0)
    assert not writing.done()
    go_on.set()
    await asyncio.wait({writing})

    assert writing.cancelled()
    assert (tmp_path / "made" / "contexts" / "a.json").read_text() == '{"v":"new"}\n'


async def test_a_damaged_file_is_an_error_and_never_an_empty_context(store: FileContextStore, tmp_path: Path):
    await store.set("a", {"x": 1})
    path = tmp_path / "made" / "contexts" / "a.json"

    for content in (
        b"",
        b'"a"\n',
        b'"a"\n{"x":',
        b'"a"\n{"x":\n',
        b'"a"\n[1]\n',
        b"\xff\n{}\n",
        b"1\n{}\n",
        b"{}",
        b'{"x":\n',
        b"[1]\n",
    ):
        path.write_bytes(content)
        for call in (store.get("a"), store.update("a", {}), store.compare_and_set("a", {}, expected=None)):
            with pytest.raises(ContextStoreError):
                await call
        assert path.read_bytes() == content


async def test_files_of_others_are_left_alone(store: FileContextStore, tmp_path: Path):
    await store.set("a", {})
    for name in ("README.json", "%ZZ.json", "%FF.json", "note.txt", ".hidden.json", "é.json"):
        (tmp_path / "made" / "contexts" / name).write_text("not ours")

    assert await store.list_keys() == ["a"]


async def test_a_folder_that_cannot_be_written_is_a_context_store_error(tmp_path: Path):
    (tmp_path / "file").write_text("in the way")
    store = FileContextStore(tmp_path / "file")

    for call in (store.get("a"), store.set("a", {}), store.update("a", {})):
        with pytest.raises(ContextStoreError) as caught:
            await call
        assert isinstance(caught.value.__cause__, OSError)


async def test_a_bulk_write_that_fails_stores_nothing_and_leaves_nothing(store: FileContextStore, tmp_path: Path):
    folder = tmp_path / "made" / "contexts"
    await store.set("a", {"old": 1})
    (folder / ".b.unfinished").mkdir()

    with pytest.raises(ContextStoreError):
        await store.set_many({"a": {"new": 1}, "b": {}})
    (folder / ".b.unfinished").rmdir()

    assert await store.get_many(["a", "b"]) == {"a": {"old": 1}}
    assert sorted(each.name for each in folder.iterdir()) == [".locks", "a.json"]


async def test_updates_of_several_processes_lose_nothing(store: FileContextStore, tmp_path: Path):
    await updates_from_processes("file", str(tmp_path / "made" / "contexts"))

    assert await store.get("shared") == {f"field{n}": n for n in range(30)}


@pytest.mark.timeout(400)
@pytest.mark.parametrize("kills", [3, pytest.param(100, marks=pytest.mark.faults)])
def test_a_kill_at_any_moment_leaves_the_old_or_the_new(tmp_path: Path, kills: int):
    store = FileContextStore(tmp_path)
    chance = random.Random(1)

    for _ in range(kills):
        with Forked("tests.context.writer", "file", str(tmp_path)) as writer:
            first = writer.stdout.readline()
            time.sleep(chance.uniform(0, 0.05))
            assert writer.returncode is None
            writer.kill()
            said = int((first + writer.stdout.read()).split()[-1])
        found = asyncio.run(store.get("killed"))

        assert found is not None
        assert found["padding"] == [found["number"]] * 2_000
        assert found["number"] in {said, said + 1}


@pytest.mark.parametrize("wrong", [None, 5, b"folder"])
def test_what_is_no_path_is_refused_at_once(wrong: Any):
    for make in (FileContextStore, FileStateStore):
        with pytest.raises(ConfigurationError, match="directory must be a path, got "):
            make(wrong)
    if wrong is not None:
        with pytest.raises(ConfigurationError, match="db_path must be a path, got "):
            DatabaseContextStore(wrong)
