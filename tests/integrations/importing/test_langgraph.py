"""Threads of LangGraph's savers: what is read after an import is what LangGraph's own saver read before."""

import os
from typing import Any

import pytest
from langgraph.checkpoint.base import empty_checkpoint
from langgraph.checkpoint.serde.encrypted import EncryptedSerializer
from langgraph.types import Command
from sqlalchemy import text

from agent_service.infrastructure.database.engine import DatabaseManager
from agent_service.integrations.importing import ImportStoppedError, Options, import_langgraph
from agent_service.integrations.langgraph import AgentServiceSaver
from tests.integrations.importing.filled import execute
from tests.integrations.importing.graphs import fill_threads, graph, saver_of, tuples_of

THREADS = ["a", "b", "c/1"]


class Salted:
    """A cipher that anybody can break, and that encrypts nothing twice alike."""

    def encrypt(self, plaintext: bytes) -> tuple[str, bytes]:
        return "salted", os.urandom(8) + plaintext[::-1]

    def decrypt(self, ciphername: str, ciphertext: bytes) -> bytes:
        assert ciphername == "salted"
        return ciphertext[8:][::-1]


async def theirs(url: str, threads: Any = THREADS) -> dict[str, list[Any]]:
    async with saver_of(url) as saver:
        return await tuples_of(saver, threads)


async def ours(target: DatabaseManager, threads: Any = THREADS, **options: Any) -> dict[str, list[Any]]:
    async with AgentServiceSaver(target, **options) as saver:
        return await tuples_of(saver, threads)


async def test_checkpoints_values_and_writes_are_read_as_langgraph_read_them(target: DatabaseManager, source_url: str):
    await fill_threads(source_url, THREADS, turns=2)
    before = await theirs(source_url)

    report = await import_langgraph(source_url, options=Options(database=target))
    again = await import_langgraph(source_url, options=Options(database=target))

    assert await ours(target) == before
    checkpoints = sum(map(len, before.values()))
    writes = sum(len(each.pending_writes) for thread in before.values() for each in thread)
    assert checkpoints > 20
    assert (report.added, report.items, report.items_added) == (3, checkpoints + writes, checkpoints + writes)
    assert (again.unchanged, again.items, again.changed) == (3, checkpoints + writes, False)


async def test_the_latest_checkpoint_and_filters_give_the_same(target: DatabaseManager, source_url: str):
    await fill_threads(source_url, THREADS)
    await import_langgraph(source_url, options=Options(database=target))
    answers = []
    async with saver_of(source_url) as one, AgentServiceSaver(target) as other:
        for saver in (one, other):
            latest = await saver.aget_tuple({"configurable": {"thread_id": "a"}})
            found = [each async for each in saver.alist(None, filter={"source": "update"})]
            answers.append((latest, found))

    assert answers[0] == answers[1]
    assert answers[0][1] != []


async def test_a_run_is_resumed_in_the_target(target: DatabaseManager, source_url: str):
    await fill_threads(source_url, ["x", "interrupted"])
    await import_langgraph(source_url, options=Options(database=target))
    config: Any = {"configurable": {"thread_id": "interrupted"}}

    async with AgentServiceSaver(target) as saver:
        result = await graph(saver).ainvoke(Command(resume="bob"), config)

    assert (result["who"], result["done"]) == ("bob", True)
    report = await import_langgraph(source_url, options=Options(database=target))
    assert report.unchanged == 2


async def test_threads_that_grew_are_brought_up_to_date(target: DatabaseManager, source_url: str):
    await fill_threads(source_url, ["x", "b"])
    await import_langgraph(source_url, options=Options(database=target))
    async with saver_of(source_url) as saver:
        config: Any = {"configurable": {"thread_id": "b"}}
        await graph(saver).ainvoke(Command(resume="cid"), config)
        await fill_threads(source_url, ["new"])

    report = await import_langgraph(source_url, options=Options(database=target))

    assert (report.added, report.extended, report.unchanged) == (1, 1, 1)
    assert await ours(target, ["x", "b", "new"]) == await theirs(source_url, ["x", "b", "new"])


async def test_what_was_to_be_sent_is_found_in_checkpoints_of_old_versions(
    target: DatabaseManager, empty_postgres_url: str
):
    async with saver_of(empty_postgres_url) as saver:
        config: Any = {"configurable": {"thread_id": "old", "checkpoint_ns": ""}}
        first: Any = {**empty_checkpoint(), "v": 1, "channel_versions": {"a": "1.5"}, "channel_values": {"a": [1]}}
        second: Any = {**empty_checkpoint(), "v": 1, "channel_versions": {"a": "1.5"}, "channel_values": {"a": [1]}}
        parent = await saver.aput(config, first, {"step": 0}, {"a": "1.5"})
        await saver.aput_writes(parent, [("__pregel_tasks", {"node": "x"}), ("a", 2)], "t2", "~2")
        await saver.aput_writes(parent, [("__pregel_tasks", ["y"])], "t1", "~1")
        await saver.aput(parent, second, {"step": 1}, {})
    before = await theirs(empty_postgres_url, ["old"])
    assert before["old"][1].checkpoint["channel_values"]["__pregel_tasks"] == [["y"], {"node": "x"}]

    await import_langgraph(empty_postgres_url, options=Options(database=target))

    assert await ours(target, ["old"]) == before


async def test_an_encrypted_source_takes_its_serializer(target: DatabaseManager, source_url: str):
    serde = EncryptedSerializer(Salted())
    async with saver_of(source_url) as saver:
        saver.serde = serde
        checkpoint: Any = {**empty_checkpoint(), "channel_versions": {"a": "1"}, "channel_values": {"a": {"x": {1}}}}
        config: Any = {"configurable": {"thread_id": "a", "checkpoint_ns": ""}}
        await saver.aput_writes(await saver.aput(config, checkpoint, {"step": 0}, {"a": "1"}), [("a", "w")], "t")
        before = await tuples_of(saver, "a")

    report = await import_langgraph(source_url, serde=serde, options=Options(database=target))
    again = await import_langgraph(source_url, serde=serde, options=Options(database=target))

    assert await ours(target, "a", serde=serde) == before
    assert (report.added, again.unchanged) == (1, 1)
    async with target.session() as db:
        formats = await db.execute(text("SELECT format, meta_format FROM agent_service_checkpoints"))
    assert formats.one() == ("msgpack+salted", "msgpack+salted")


async def test_an_encrypted_file_needs_its_serializer(target: DatabaseManager, source_file: str):
    async with saver_of(source_file) as saver:
        saver.serde = EncryptedSerializer(Salted())
        config: Any = {"configurable": {"thread_id": "a", "checkpoint_ns": ""}}
        await saver.aput(config, empty_checkpoint(), {"step": 0}, {})

    with pytest.raises(ImportStoppedError, match="give the serde"):
        await import_langgraph(source_file, options=Options(database=target))


async def test_values_of_a_version_must_agree(target: DatabaseManager, source_file: str):
    config: Any = {"configurable": {"thread_id": "a", "checkpoint_ns": ""}}
    async with saver_of(source_file) as saver:
        for value in (1, 2):
            checkpoint: Any = {**empty_checkpoint(), "channel_versions": {"a": 1}, "channel_values": {"a": value}}
            await saver.aput(config, checkpoint, {"step": 0}, {"a": 1})

    with pytest.raises(ImportStoppedError, match="channel 'a' has another value here"):
        await import_langgraph(source_file, options=Options(database=target))

    assert await ours(target, "a") == {"a": []}


async def test_an_older_file_without_paths_of_tasks_is_read(target: DatabaseManager, source_file: str):
    await fill_threads(source_file, ["a"])
    before = await theirs(source_file, ["a"])
    await execute(source_file, "UPDATE writes SET task_path = ''")
    expected = await theirs(source_file, ["a"])
    await execute(source_file, "ALTER TABLE writes DROP COLUMN task_path")

    await import_langgraph(source_file, options=Options(database=target))

    assert await ours(target, ["a"]) == expected
    assert len(before["a"]) == len(expected["a"])
