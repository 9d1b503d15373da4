"""What other savers get wrong, tenants, arguments that cannot be used, and calls without an event loop."""

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast
from uuid import UUID, uuid4

import pytest
from langgraph.checkpoint.base.id import uuid6
from langgraph.checkpoint.serde.encrypted import EncryptedSerializer
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.graph import START, StateGraph
from langgraph.types import Command, interrupt
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from agent_service.core.errors import (
    BridgeError,
    ConfigurationError,
    DatabaseError,
    SessionConflictError,
    SessionError,
    SessionValueError,
)
from agent_service.core.settings import reset_settings
from agent_service.infrastructure.database import erase_user
from agent_service.infrastructure.database.engine.manager import DatabaseManager
from agent_service.infrastructure.database.naming.engines import names_of
from agent_service.integrations.langgraph.saver import AgentServiceSaver
from tests.integrations.langgraph.graphs import Steps, config, time_travel
from tests.servers.pgbouncer import by_way_of, running_pgbouncer
from tests.servers.postgres import PostgresServer


def checkpoint(step: int, values: Any = None, **versions: Any) -> Any:
    """Return a checkpoint as a graph makes one."""
    return {
        "v": 4,
        "id": str(uuid6(clock_seq=step)),
        "ts": "2026-12-01T12:00:00+00:00",
        "channel_values": values or {},
        "channel_versions": versions,
        "versions_seen": {},
        "updated_channels": None,
    }


async def put(saver: AgentServiceSaver, thread: str, step: int = 0, values: Any = None, **metadata: Any) -> Any:
    """Store a checkpoint with these values, and return its config."""
    versions: Any = dict.fromkeys(values or {}, f"{step}.0")
    given: Any = {"configurable": {"thread_id": thread, "checkpoint_ns": ""}}
    return await saver.aput(
        given, checkpoint(step, values, **versions), cast("Any", {"step": step, **metadata}), versions
    )


async def ids(saver: AgentServiceSaver, given: Any, **options: Any) -> list[str]:
    """Return the checkpoints of a listing."""
    return [each.config["configurable"]["checkpoint_id"] async for each in saver.alist(given, **options)]


async def test_a_listing_that_pauses_blocks_nobody_and_holds_no_connection(
    saver: AgentServiceSaver, database: DatabaseManager
) -> None:
    for step in range(60):
        await put(saver, "thread", step, {"state": step})

    listing = saver.alist(config("thread"))
    first = await anext(listing)
    assert database.get_metrics()["in_use"] == 0
    await put(saver, "thread", 60, {"state": 60})
    await saver.adelete_thread("other")
    rest = [each async for each in listing]

    assert first.checkpoint["channel_values"] == {"state": 59}
    assert [each.checkpoint["channel_values"]["state"] for each in rest] == list(reversed(range(59)))


async def test_a_value_is_stored_as_it_was_when_it_was_given(saver: AgentServiceSaver) -> None:
    values = {"state": ["before"]}

    storing = asyncio.create_task(put(saver, "thread", 0, values))
    await asyncio.sleep(0)
    values["state"].append("after")
    await storing

    found = await saver.aget_tuple(config("thread"))
    assert found is not None
    assert found.checkpoint["channel_values"] == {"state": ["before"]}
    assert found.config["configurable"]["checkpoint_id"] == found.checkpoint["id"]


async def test_calls_that_wait_are_refused_on_the_thread_of_a_loop(saver: AgentServiceSaver) -> None:
    stored = await put(saver, "thread")
    for call in (
        lambda: saver.get_tuple(stored),
        lambda: list(saver.list(None)),
        lambda: saver.put_writes(stored, [("state", 1)], "task"),
        lambda: saver.delete_thread("thread"),
        AgentServiceSaver().__enter__,
    ):
        with pytest.raises(asyncio.InvalidStateError, match="await the method") as caught:
            call()
        assert isinstance(caught.value, BridgeError)


async def test_a_graph_without_await_runs_in_threads_of_an_open_saver(saver: AgentServiceSaver) -> None:
    await put(saver, "thread", 0, {"state": 1})

    found = await asyncio.to_thread(saver.get_tuple, config("thread"))
    listed = await asyncio.to_thread(lambda: list(saver.list(None, limit=1)))

    assert found is not None
    assert listed == [found]


@pytest.fixture
def configured(database_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Settings that lead to an empty database."""
    monkeypatch.setenv("DATABASE_URL", database_url)
    reset_settings()
    yield
    reset_settings()


def test_code_without_a_loop_uses_the_database_of_the_settings(configured: None) -> None:
    with AgentServiceSaver() as saver:
        stored = saver.put(
            {"configurable": {"thread_id": "thread", "checkpoint_ns": ""}},
            checkpoint(0, {"state": "é"}, state="1.0"),
            cast("Any", {"source": "loop"}),
            {"state": "1.0"},
        )
        saver.put_writes(stored, [("state", 1)], "task")
        found = saver.get_tuple(config("thread"))
        assert found is not None
        assert (found.config, found.pending_writes) == (stored, [("task", "state", 1)])
        saver.copy_thread("thread", "copy")
        saver.prune(["thread"], strategy="delete")
        assert saver.get_delta_channel_history(config=config("copy"), channels=[]) == {}
        # Another event loop awaits what this one's does.
        assert asyncio.run(_aget(saver)) == "é"

    with pytest.raises(SessionError, match="not open"):
        saver.get_tuple(config("thread"))
    with pytest.raises(SessionError, match="opened before"), saver:
        pass


async def _aget(saver: AgentServiceSaver) -> Any:
    found = await saver.aget_tuple(config("copy"))
    assert found is not None
    return found.checkpoint["channel_values"]["state"]


async def test_copies_with_another_allowlist_or_tenant_share_the_connections(
    database: DatabaseManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    serde = JsonPlusSerializer(allowed_msgpack_modules=None)
    async with AgentServiceSaver(database, serde=serde) as saver:
        allowed = saver.with_allowlist([("tests.integrations.langgraph.test_saver", "Unknown")])
        assert isinstance(allowed, AgentServiceSaver)
        assert allowed is not saver
        await put(allowed, "thread", 0, {"state": 1})
        await put(saver.for_tenant("acme"), "thread", 0, {"state": 2})
        found = await saver.aget_tuple(config("thread"))
    assert found is not None
    assert found.checkpoint["channel_values"] == {"state": 1}
    with pytest.raises(SessionError, match="not open"):
        await allowed.aget_tuple(config("thread"))


async def test_a_tenant_neither_sees_nor_touches_anothers_threads(saver: AgentServiceSaver) -> None:
    other = saver.for_tenant("acme")
    ours = await put(saver, "thread", 0, {"state": "ours"}, run_id="run")
    await saver.aput_writes(ours, [("log", "ours")], "task")
    later = await put(saver, "thread", 1, {"state": "ours"}, run_id="run")
    before = [each async for each in saver.alist(None)]

    assert await other.aget_tuple(ours) is None
    assert await other.aget_tuple(config("thread")) is None
    assert [await ids(other, each) for each in (None, config("thread"), ours)] == [[], [], []]
    assert await other.aget_delta_channel_history(config=later, channels=["log"]) == {"log": {"writes": []}}
    await other.adelete_for_runs(["run"])
    await other.adelete_thread("thread")
    await other.acopy_thread("thread", "copy")
    for strategy in ("keep_latest", "delete"):
        await other.aprune(["thread"], strategy=strategy)
    assert await ids(other, None) == []
    assert [each async for each in saver.alist(None)] == before

    # The same ids, of another tenant, are other threads.
    await other.aput_writes(ours, [("log", "theirs")], "task")
    await put(other, "thread", 0, {"state": "theirs"}, run_id="run")
    assert [each async for each in saver.alist(None)] == before
    for strategy in ("keep_latest", "delete"):
        await other.aprune(["thread"], strategy=strategy)
    assert await ids(other, None) == []
    assert [each async for each in saver.alist(None)] == before


async def test_row_security_hides_threads_of_other_tenants(postgres_url: str) -> None:
    owner = DatabaseManager(postgres_url)
    async with owner.session() as db:
        schema = (await (await db.connection()).run_sync(names_of)).schema
        await db.execute(text("CREATE ROLE saving LOGIN"))
        await db.execute(text(f'GRANT USAGE ON SCHEMA "{schema}" TO saving'))
        await db.execute(text(f'GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA "{schema}" TO saving'))
    await owner.switch_row_security(on=True)
    service = DatabaseManager(postgres_url.replace("postgres@", "saving@", 1), row_security=True)
    async with AgentServiceSaver(service, tenant_id="acme") as saver:
        await put(saver, "thread", 0, {"state": 1}, run_id="run")
        await put(saver.for_tenant("other"), "thread", 0, {"state": 2})
        await saver.acopy_thread("thread", "copy")
        await saver.aprune(["copy"])
        assert len(await ids(saver, None)) == 2
        await erase_user(service, "ada", tenant_id="acme")
    async with service.engine.connect() as connection:
        assert (await connection.execute(text("SELECT count(*) FROM agent_service_checkpoints"))).scalar() == 0
    await service.close()
    async with owner.session() as db:
        assert (await db.execute(text("SELECT count(*) FROM agent_service_checkpoints"))).scalar() == 3
        await db.execute(text("DROP OWNED BY saving"))
        await db.execute(text("DROP ROLE saving"))
    await owner.close()


async def test_a_saver_works_behind_a_pgbouncer(postgres_server: PostgresServer, postgres_url: str) -> None:
    with running_pgbouncer(postgres_server) as port:
        database = DatabaseManager(by_way_of(port, postgres_url), pgbouncer=True)
        async with AgentServiceSaver(database) as saver, AgentServiceSaver(database) as other:
            await asyncio.gather(
                *(put(each, f"thread {n}", n, {"state": n}) for n in range(20) for each in (saver, other))
            )
            await saver.acopy_thread("thread 1", "copy")
            await saver.aprune(["thread 1"])
            assert await time_travel(other, "graph")
            assert len(await ids(other, config("copy"))) == 2
        await database.close()


async def test_savers_of_several_engines_write_one_file(sqlite_url: str) -> None:
    databases = [DatabaseManager(sqlite_url) for _ in range(3)]
    savers = [AgentServiceSaver(each) for each in databases]
    for saver in savers:
        await saver.__aenter__()

    await asyncio.gather(*(put(saver, "thread", n, {"state": n}) for n in range(30) for saver in savers))

    assert len(await ids(savers[0], None)) == 90
    for saver, database in zip(savers, databases, strict=True):
        await saver.__aexit__(None, None, None)
        await database.close()


async def test_an_engine_of_the_callers_own_serves(database_url: str) -> None:
    options = {"isolation_level": "SERIALIZABLE"} if database_url.startswith("postgresql") else {}
    engine = create_async_engine(database_url, **options)
    async with AgentServiceSaver(engine) as saver:
        await asyncio.gather(*(put(saver, "thread", n, {"state": n}) for n in range(10)))
        await saver.acopy_thread("thread", "copy")
        await saver.aprune(["copy"])
        assert (len(await ids(saver, config("thread"))), len(await ids(saver, config("copy")))) == (10, 1)
    await engine.dispose()


async def test_calls_of_one_thread_at_the_same_time_all_count(saver: AgentServiceSaver) -> None:
    stored = await put(saver, "thread", 0, {"state": 0})

    await asyncio.gather(
        *(saver.aput_writes(stored, [("state", n), ("__error__", n)], f"task {n:02}", f"~{n % 3}") for n in range(20)),
        *(put(saver, "thread", n, {"state": n}) for n in range(1, 20)),
        *(saver.aget_tuple(stored) for _ in range(5)),
    )

    found = await saver.aget_tuple(stored)
    assert found is not None
    order = sorted(range(20), key=lambda n: (n % 3, n))
    assert [value for _, channel, value in found.pending_writes or () if channel == "state"] == order
    assert len(await ids(saver, config("thread"))) == 20


async def test_filters_compare_as_python_does_and_limits_count_after_them(saver: AgentServiceSaver) -> None:
    for step in range(120):
        odd = {"flag": step % 2 == 1, "source": "loop" if step % 3 else "input", 'a"b': "quoted", "text": "\ud800" * 2}
        await put(saver, "thread", step, None, **odd)

    newest = await ids(saver, config("thread"))
    assert await ids(saver, config("thread"), filter={"flag": 1}, limit=55) == newest[::2][:55]
    assert await ids(saver, None, filter={"source": "input", 'a"b': "quoted"}) == newest[2::3]
    assert await ids(saver, None, filter={"missing": None}, limit=3) == newest[:3]
    assert await ids(saver, None, filter={"text": "\ud800" * 2, "step": 7}) in ([], [newest[112]])
    before = {"configurable": {"thread_id": "thread", "checkpoint_id": newest[100]}}
    assert await ids(saver, config("thread"), before=before) == newest[101:]
    assert await ids(saver, config("thread"), limit=0) == []


async def test_nothing_is_pickled_and_nothing_pickled_is_read(
    saver: AgentServiceSaver, database: DatabaseManager
) -> None:
    for serde in (
        JsonPlusSerializer(pickle_fallback=True),
        EncryptedSerializer(Cipher(), JsonPlusSerializer(pickle_fallback=True)),
    ):
        with pytest.raises(ConfigurationError, match="pickle"):
            AgentServiceSaver(database, serde=serde)
    with pytest.raises(SessionValueError, match="channel 'state' cannot be encoded"):
        await put(saver, "thread", 0, {"state": object()})
    stored = await put(saver, "thread", 0, {"state": 1})
    async with database.session() as db:
        await db.execute(text("UPDATE agent_service_checkpoint_blobs SET format = 'pickle'"))
    with pytest.raises(DatabaseError, match="is pickled, which is never read"):
        await saver.aget_tuple(stored)


class Cipher:
    """Encrypts nothing well."""

    def encrypt(self, plaintext: bytes) -> tuple[str, bytes]:
        return "turned", plaintext[::-1]

    def decrypt(self, ciphername: str, ciphertext: bytes) -> bytes:
        assert ciphername == "turned"
        return ciphertext[::-1]


async def test_encrypted_values_are_read_with_their_serializer_only(
    saver: AgentServiceSaver, database: DatabaseManager
) -> None:
    async with AgentServiceSaver(database, serde=EncryptedSerializer(Cipher())) as encrypting:
        await put(encrypting, "thread", 0, {"state": ["secret", 1]})
        found = await encrypting.aget_tuple(config("thread"))
        assert found is not None
        assert found.checkpoint["channel_values"] == {"state": ["secret", 1]}
    with pytest.raises(DatabaseError, match="cannot be decoded") as caught:
        await saver.aget_tuple(config("thread"))
    assert "secret" not in str(caught.value)
    assert caught.value.__cause__ is not None


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({}, "no configurable"),
        ({"configurable": {}}, "no thread_id"),
        ({"configurable": {"thread_id": ""}}, "thread_id must not be empty"),
        ({"configurable": {"thread_id": 1.5}}, "thread_id must be a string"),
        ({"configurable": {"thread_id": "x", "checkpoint_ns": "\x00"}}, "namespace holds"),
        ({"configurable": {"thread_id": "x", "user_id": "u" * 300}}, "user_id must have"),
    ],
)
async def test_a_config_that_names_no_place_is_refused(saver: AgentServiceSaver, given: Any, named: str) -> None:
    with pytest.raises(SessionValueError, match=named):
        await saver.aput(given, checkpoint(0), {}, {})


async def test_arguments_that_cannot_be_used_are_named(saver: AgentServiceSaver) -> None:
    with pytest.raises(SessionValueError, match="strategy must be one of"):
        await saver.aprune(["thread"], strategy="newest")
    with pytest.raises(SessionValueError, match="thread_ids must be a list"):
        await saver.aprune("thread")
    with pytest.raises(SessionValueError, match="run_ids must be a list"):
        await saver.adelete_for_runs("run")
    with pytest.raises(SessionValueError, match="run_ids holds U"):
        await saver.adelete_for_runs(["\x00"])
    with pytest.raises(SessionValueError, match="limit must be"):
        await ids(saver, None, limit=1.5)
    with pytest.raises(SessionValueError, match="filter must be a dict"):
        await ids(saver, None, filter=["step"])
    for version in (float("nan"), float("inf")):
        with pytest.raises(SessionValueError, match="version of a channel"):
            await saver.aput(config("thread"), checkpoint(0, {"a": 1}, a=version), {}, {"a": version})
    with pytest.raises(SessionValueError, match="no checkpoint_id"):
        await saver.aput_writes(config("thread"), [("state", 1)], "task")
    with pytest.raises(SessionValueError, match="begins with a number"):
        saver.get_next_version("latest", None)
    with pytest.raises(SessionValueError, match="version of a channel"):
        await saver.aput(config("thread"), checkpoint(0, {"a": 1}, a=None), {}, {"a": None})  # type: ignore[dict-item]
    with pytest.raises(SessionValueError, match="timeout"):
        AgentServiceSaver(timeout=0)
    await put(saver, "source")
    with pytest.raises(SessionConflictError, match="exists"):
        await saver.acopy_thread("source", "source")


async def test_ids_of_other_types_are_the_same_as_their_text(saver: AgentServiceSaver) -> None:
    thread = uuid4()
    await put(saver, cast("Any", thread), 0, {"state": 1})
    await put(saver, cast("Any", 7), 0, {"state": 1})

    assert len(await ids(saver, config(str(thread)))) == len(await ids(saver, config("7"))) == 1
    await saver.adelete_thread(cast("Any", UUID(str(thread))))
    assert await ids(saver, config(str(thread))) == []


async def test_versions_grow_and_no_two_branches_have_the_same(saver: AgentServiceSaver) -> None:
    versions = [
        saver.get_next_version(each, None) for each in (None, "00000000000000000000000000000009.5", cast("Any", 9))
    ]

    assert [int(each.partition(".")[0]) for each in versions] == [1, 10, 10]
    assert versions[0] < versions[1]
    assert versions[1] != versions[2]


async def test_runs_whose_writes_later_checkpoints_need_stay(saver: AgentServiceSaver) -> None:
    first = await put(saver, "thread", 0, {"log": ["a"]}, run_id="one")
    await saver.aput_writes(first, [("log", ["b"])], "task")
    later = checkpoint(1, None, log="1.1")
    metadata = cast("Any", {"run_id": "two", "counters_since_delta_snapshot": {"log": [1, 1]}})
    second = await saver.aput(first, later, metadata, {"log": "1.1"})

    with pytest.raises(SessionConflictError, match="rebuilt from"):
        await saver.adelete_for_runs(["one"])
    assert len(await ids(saver, None)) == 2
    histories = await saver.aget_delta_channel_history(config=second, channels=["log"])
    assert histories["log"] == {"seed": ["a"], "writes": [("task", "log", ["b"])]}

    await saver.adelete_for_runs(["one", "two"])
    assert await ids(saver, None) == []


async def test_a_graph_goes_on_where_another_saver_left_it(saver: AgentServiceSaver, database_url: str) -> None:
    def graph(checkpointer: AgentServiceSaver) -> Any:
        builder: Any = StateGraph(Steps)
        builder.add_node("ask", lambda _: {"log": [interrupt("which?")]})
        builder.add_edge(START, "ask")
        return builder.compile(checkpointer=checkpointer)

    await graph(saver).ainvoke({"log": ["in"]}, config("thread"))
    database = DatabaseManager(database_url)
    async with AgentServiceSaver(database) as other:
        done = await graph(other).ainvoke(Command(resume="this one"), config("thread"))
    await database.close()

    assert done["log"] == ["in", "this one"]
    assert (await graph(saver).aget_state(config("thread"))).values == done


def test_the_room_without_langgraph_says_what_to_install() -> None:
    blocked = (
        "import sys; sys.modules['langgraph'] = None; sys.modules['langchain_core'] = None\n"
        "from agent_service.integrations import langgraph\n"
        "try: langgraph.AgentServiceSaver\n"
        "except ImportError as exc: print(exc)\n"
    )
    done = subprocess.run([sys.executable, "-c", blocked], capture_output=True, text=True, check=True)
    assert 'pip install "agent-service[langgraph]"' in done.stdout


async def test_a_saver_that_could_not_be_opened_is_opened_again(tmp_path: Path) -> None:
    folder = tmp_path / "missing"
    database = DatabaseManager(f"sqlite+aiosqlite:///{folder / 'x.db'}")
    saver = AgentServiceSaver(database)
    with pytest.raises(DatabaseError):
        await saver.__aenter__()
    folder.mkdir()
    async with saver:
        await put(saver, "thread")
    await database.close()

    with pytest.raises(SessionError, match="opened before"):
        await saver.__aenter__()


def test_without_a_loop_too(tmp_path: Path) -> None:
    folder = tmp_path / "missing"
    saver = AgentServiceSaver(DatabaseManager(f"sqlite+aiosqlite:///{folder / 'x.db'}"))
    with pytest.raises(DatabaseError):
        saver.__enter__()
    folder.mkdir()

    with saver:
        assert list(saver.list(None)) == []
