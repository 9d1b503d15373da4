"""What the store refuses, keeps apart and undoes, and what it does where writers meet."""

import asyncio
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic_ai.conversation import Conversation
from pydantic_ai.conversation_store import ConversationConflict, ConversationEntry, ConversationRecord
from pydantic_ai.exceptions import UserError
from pydantic_ai.messages import ModelRequest, ModelResponse, ToolReturnPart
from pydantic_ai.usage import RunUsage
from sqlalchemy import text, update

from agent_service.core.errors import (
    DatabaseError,
    DatabaseUnavailableError,
    SessionConflictError,
    SessionNotFoundError,
    SessionValueError,
    TransactionConflictError,
)
from agent_service.infrastructure.database.engine import DatabaseManager
from agent_service.infrastructure.database.models.conversation import ConversationEntryRow, ConversationRow
from agent_service.integrations.pydantic_ai import DatabaseConversationStore, StoredConversationConflict
from tests.integrations.pydantic_ai.conftest import Counted
from tests.integrations.pydantic_ai.messages import answer, question
from tests.servers.pgbouncer import by_way_of, running_pgbouncer
from tests.servers.postgres import PostgresServer


def turn(number: int) -> list[ModelRequest | ModelResponse]:
    return [question(f"{number}?"), answer(f"{number}.")]


def begun(id_: str = "chat", turns: int = 1) -> Conversation:
    return Conversation(conversation_id=id_, messages=[each for number in range(turns) for each in turn(number)])


def nested(depth: int) -> Any:
    value: Any = None
    for _ in range(depth):
        value = [value]
    return value


async def loaded(store: DatabaseConversationStore, id_: str = "chat") -> Conversation:
    conversation = await store.load(id_)
    assert conversation is not None
    return conversation


async def test_of_writers_of_one_conversation_one_gets_through(
    store: DatabaseConversationStore, counted: Counted
) -> None:
    await store.save(begun())
    copies = [await loaded(store) for _ in range(5)]
    for number, conversation in enumerate(copies):
        conversation.messages += turn(number + 1)

    results = await asyncio.gather(*(store.save(each) for each in copies), return_exceptions=True)

    conflicts = [each for each in results if isinstance(each, StoredConversationConflict)]
    assert len(conflicts) == 4
    assert isinstance(conflicts[0], ConversationConflict)
    assert isinstance(conflicts[0], SessionConflictError)
    assert conflicts[0].conversation_id == "chat"
    assert await counted() == (1, 4)


async def test_of_those_who_begin_a_conversation_one_gets_through(
    store: DatabaseConversationStore, counted: Counted
) -> None:
    results = await asyncio.gather(*(store.save(begun()) for _ in range(5)), return_exceptions=True)

    assert sum(isinstance(each, ConversationConflict) for each in results) == 4
    assert await counted() == (1, 2)


async def test_writers_who_load_again_lose_no_turn(store: DatabaseConversationStore) -> None:
    await store.save(begun(turns=0))

    async def say(number: int) -> None:
        while True:
            conversation = await loaded(store)
            conversation.messages += turn(number)
            try:
                await store.save(conversation)
            except ConversationConflict:
                continue
            return

    await asyncio.gather(*map(say, range(6)))

    texts = [str(part.content) for message in (await loaded(store)).messages for part in message.parts]  # type: ignore[union-attr]
    assert sorted(texts[::2]) == [f"{number}?" for number in range(6)]
    assert all(asked[:-1] == said[:-1] for asked, said in zip(texts[::2], texts[1::2], strict=True))


async def test_what_conversations_share_goes_with_the_last_of_them(
    store: DatabaseConversationStore, counted: Counted
) -> None:
    await store.save(begun("first", turns=3))
    for number in range(6):
        fork = await store.fork("first", at=2 + number % 3, new_conversation_id=f"fork {number}")
        fork.messages += turn(9)
        await store.save(fork)

    await asyncio.gather(*(store.delete(id_) for id_ in ["first", *(f"fork {number}" for number in range(6))]))

    assert await counted() == (0, 0)


async def test_a_fork_of_what_is_being_deleted_is_whole_or_refused(
    store: DatabaseConversationStore, counted: Counted
) -> None:
    for number in range(8):
        await store.save(begun(f"first {number}", turns=2))

    async def fork(number: int) -> bool:
        try:
            await store.fork(f"first {number}", new_conversation_id=f"fork {number}")
        except UserError:  # It is gone, or it went meanwhile.
            return False
        return True

    forks = [fork(number) for number in range(8)]
    deletions = [store.delete(f"first {number}") for number in range(8)]
    made: list[Any] = await asyncio.gather(*(each for pair in zip(forks, deletions, strict=True) for each in pair))

    kept = sum(made[::2])
    assert await counted() == (kept, 4 * kept)
    for number, whole in enumerate(made[::2]):
        if whole:
            assert len((await loaded(store, f"fork {number}")).messages) == 4


async def test_a_branch_of_another_conversation_is_kept(store: DatabaseConversationStore, counted: Counted) -> None:
    await store.save(begun("first", turns=3))
    fork = await store.fork("first", new_conversation_id="fork")
    branched = await store.branch("fork", at=1, expected_revision=fork.revision)
    entries = await store.load_entries("first")
    assert entries is not None

    await store.delete("first")
    back = await store.branch("fork", from_entry=entries[-1].id, expected_revision=branched.revision)

    assert len(back.messages) == 6
    await store.delete("fork")
    assert await counted() == (0, 0)


async def test_order_is_that_of_the_chain_whatever_clocks_and_ids_say(store: DatabaseConversationStore) -> None:
    names = ["c", "a", "b"]
    entries = [
        ConversationEntry(id=name, parent_id=parent, message=question(name))
        for name, parent in zip(names, [None, *names], strict=False)
    ]
    long_ago = datetime(1999, 1, 1, tzinfo=UTC)
    record = ConversationRecord(conversation_id="chat", head_id="b", updated_at=long_ago)
    await store.write_record(record, new_entries=entries, expected_revision=None)

    assert [entry.id for entry in await store.read_history("b")] == names
    assert [entry.id for entry in await store.read_history("b", limit=2)] == ["a", "b"]
    assert await store.read_history("b", limit=0) == []
    assert (await store.read_record("chat")) == record


async def test_nothing_is_stored_of_a_save_that_fails(store: DatabaseConversationStore, counted: Counted) -> None:
    conversation = begun()
    await store.save(conversation)
    before = await store.list_conversations()
    conversation.messages += [*turn(1), ModelRequest(parts=[ToolReturnPart("x", {"a": "\ud800"}, "1")])]

    with pytest.raises(SessionValueError, match=r"message of entry .* cannot be written as JSON"):
        await store.save(conversation)

    assert await store.list_conversations() == before
    assert await counted() == (1, 2)


@pytest.mark.parametrize(
    ("usage", "messages"),
    [
        (RunUsage(), [ModelRequest(parts=[ToolReturnPart("x", {"a": 10**5000}, "1")])]),
        (RunUsage(), [ModelRequest(parts=[ToolReturnPart("x", nested(200), "1")])]),
        (RunUsage(input_tokens=10**5000), []),
        (RunUsage(input_tokens="secret"), []),
    ],
    ids=["a huge number", "deep nesting", "usage of a huge number", "usage that is no number"],
)
async def test_what_could_not_be_read_again_is_refused_before_it_spoils_lists(
    store: DatabaseConversationStore, counted: Counted, usage: RunUsage, messages: list[ModelRequest]
) -> None:
    conversation = Conversation(conversation_id="chat", messages=[*messages], usage=usage)

    with pytest.raises(SessionValueError, match="could not be read again, so nothing was stored") as caught:
        await store.save(conversation)

    assert "secret" not in str(caught.value)
    assert await counted() == (0, 0)
    await store.save(begun())
    assert len(await store.list_conversations()) == 1


async def test_a_history_cannot_go_on_from_what_is_not_stored(
    store: DatabaseConversationStore, counted: Counted
) -> None:
    await store.save(begun("other"))
    other = await store.read_record("other")
    assert other is not None
    record = ConversationRecord(conversation_id="chat", head_id="gone")
    entry = ConversationEntry(id="new", parent_id="gone", message=question("?"))

    for head, added in (("gone", []), ("new", [entry])):
        record.head_id = head
        with pytest.raises(StoredConversationConflict):
            await store.write_record(record, new_entries=added, expected_revision=None)
    taken = ConversationEntry(id=str(other.head_id), parent_id=None, message=question("another"))
    with pytest.raises(StoredConversationConflict):
        await store.write_record(record, new_entries=[taken, entry], expected_revision=None)
    assert await counted() == (1, 2)


@pytest.mark.parametrize(
    ("changes", "entries", "named"),
    [
        ({"conversation_id": ""}, [], "conversation_id must have 1 to 255 characters"),
        ({"conversation_id": "a" * 256}, [], "conversation_id must have 1 to 255 characters"),
        ({"conversation_id": 7}, [], "conversation_id must be a string"),
        ({"scope": "a\x00"}, [], r"scope holds U\+0000"),
        ({"scope": "é" * 256}, [], "scope must have at most 255"),
        ({"revision": ""}, [], "revision must have"),
        ({"updated_at": datetime(2026, 1, 1)}, [], "updated_at must be a timezone-aware"),  # noqa: DTZ001
        ({"head_id": "\ud800"}, [], "head_id holds a lone surrogate"),
        ({"branches": ["a" * 256]}, [], "branches must have"),
        ({"head_id": "b"}, [("b", "a"), ("a", None)], r"new_entries\[0\] comes before its parent"),
        ({"head_id": "a"}, [("a", None), ("a", None)], "an entry twice"),
        ({"head_id": "a"}, [("a", "a")], r"new_entries\[0\] comes before its parent"),
        ({"head_id": "a"}, [("a" * 256, None)], r"the id of new_entries\[0\]"),
    ],
)
async def test_what_cannot_be_stored_is_named(
    store: DatabaseConversationStore, counted: Counted, changes: Any, entries: Any, named: str
) -> None:
    record = ConversationRecord(**{"conversation_id": "chat", "head_id": None, **changes})
    added = [ConversationEntry(id=id_, parent_id=parent, message=question("?")) for id_, parent in entries]

    with pytest.raises(SessionValueError, match=named):
        await store.write_record(record, new_entries=added, expected_revision=None)
    assert await counted() == (0, 0)


async def test_arguments_that_cannot_be_used_are_named(store: DatabaseConversationStore) -> None:
    with pytest.raises(SessionValueError, match="database must be a DatabaseManager, not str"):
        DatabaseConversationStore("sqlite://")  # type: ignore[arg-type]
    with pytest.raises(SessionValueError, match="tenant_id must be a string"):
        DatabaseConversationStore(tenant_id=None)  # type: ignore[arg-type]
    with pytest.raises(SessionValueError, match="limit must be an integer"):
        await store.read_records(limit=-1)
    with pytest.raises(SessionValueError, match="limit must be an integer"):
        await store.read_history("a", limit=1.5)  # type: ignore[arg-type]
    with pytest.raises(SessionValueError, match="expected_revision must be"):
        await store.delete_record("chat", expected_revision=None)  # type: ignore[arg-type]
    for absent in (store.read_entry("a"), store.read_history("a")):
        with pytest.raises(SessionNotFoundError) as caught:
            await absent
        assert isinstance(caught.value, LookupError)


async def test_tenants_with_the_same_ids_never_meet(database: DatabaseManager, counted: Counted) -> None:
    acme, other = (DatabaseConversationStore(database, tenant_id=tenant) for tenant in ("acme", ""))
    entry = ConversationEntry(id="e", parent_id=None, message=question("of acme"))
    record = ConversationRecord(conversation_id="chat", head_id="e", scope="ada")
    await acme.write_record(record, new_entries=[entry], expected_revision=None)

    for reading in (other.load, other.load_entries, other.read_record):
        assert await reading("chat") is None
    assert await other.list_conversations() == await other.list_conversations(scope="ada") == []
    for looking in (other.read_entry, other.read_history):
        with pytest.raises(LookupError):
            await looking("e")
    with pytest.raises(UserError, match="not in the store"):
        await other.branch("chat", at=0, expected_revision=record.revision)
    with pytest.raises(UserError, match="not in the store"):
        await other.fork("chat")
    with pytest.raises(ConversationConflict):
        await other.save(Conversation(conversation_id="chat", revision=record.revision))
    await other.delete("chat")
    with pytest.raises(ConversationConflict):
        await other.write_record(record, expected_revision=None)
    with pytest.raises(ConversationConflict):
        await other.delete_record("chat", expected_revision=record.revision)
    await other.write_record(record, new_entries=[entry], expected_revision=None)
    await other.delete("chat")
    assert await counted() == (1, 1)
    assert await acme.read_record("chat") == record


async def test_a_save_within_a_transaction_is_committed_with_it(
    database: DatabaseManager, store: DatabaseConversationStore, counted: Counted
) -> None:
    class Undone(Exception):
        pass

    async def save_within(conversation: Conversation, *, fail: bool) -> None:
        async with database.session() as db:
            entries = await store.within(db).save(conversation)
            assert await store.within(db).load_entries("chat") == entries
            if fail:
                raise Undone

    with pytest.raises(Undone):
        await save_within(begun(), fail=True)
    assert await counted() == (0, 0)
    await save_within(begun(), fail=False)
    assert await counted() == (1, 2)


async def test_a_conflict_within_a_transaction_leaves_the_rest_of_it(
    database: DatabaseManager, store: DatabaseConversationStore, counted: Counted
) -> None:
    await store.save(begun("chat"))
    async with database.session() as db:
        joined = store.within(db)
        await joined.save(begun("before"))
        with pytest.raises(StoredConversationConflict):
            await joined.save(begun("chat"))
        await joined.delete("chat")
        await joined.save(begun("after"))

    assert await counted() == (2, 4)
    assert {each.conversation_id for each in await store.list_conversations()} == {"before", "after"}


async def test_lists_are_newest_first_and_of_a_scope(store: DatabaseConversationStore) -> None:
    newest = datetime(2026, 12, 1, tzinfo=UTC)
    for age, (id_, scope) in enumerate([("a", "ada"), ("b", "eve"), ("c", None), ("d", "ada"), ("e", "")]):
        record = ConversationRecord(
            conversation_id=id_, head_id=None, scope=scope, updated_at=newest - timedelta(microseconds=age)
        )
        await store.write_record(record, expected_revision=None)

    async def listed(**options: Any) -> str:
        return "".join(each.conversation_id for each in await store.list_conversations(**options))

    assert await listed() == "abcde"
    assert await listed(limit=2) == "ab"
    assert await listed(scope="ada") == "ad"
    assert await listed(scope="ada", limit=1) == "a"
    assert await listed(scope="") == "e"
    assert await listed(scope="nobody") == await listed(limit=0) == ""


@pytest.mark.parametrize(
    ("model", "values", "told"),
    [
        (
            ConversationRow,
            {"data": '{"format_version":2,"usage":{}}'},
            "conversation 'chat' .*literal_error at format_v",
        ),
        (ConversationEntryRow, {"kind": "summary"}, "entries of the kind 'summary'"),
        (ConversationEntryRow, {"data": '{"kind":"secret"}'}, "messages of a conversation .* at 0"),
    ],
)
async def test_what_a_later_version_wrote_is_an_error_that_shows_nothing_of_it(
    database: DatabaseManager, store: DatabaseConversationStore, model: Any, values: Any, told: str
) -> None:
    await store.save(begun())
    async with database.session() as db:
        await db.execute(update(model).values(values))

    with pytest.raises(DatabaseError, match=told) as caught:
        await store.load("chat")
    assert "secret" not in str(caught.value)
    assert caught.value.__cause__ is None


async def test_usage_and_ends_of_forks_are_kept(store: DatabaseConversationStore) -> None:
    conversation = begun(turns=2)
    conversation.usage = RunUsage(requests=3, tool_calls=1, input_tokens=2**40, details={"a": 1})
    await store.save(conversation, scope="ada")
    fork = await store.fork("chat", at=1, new_conversation_id="fork")
    whole = await store.fork("chat", new_conversation_id="whole", scope="eve")

    of_fork, of_whole = await store.read_record("fork"), await store.read_record("whole")
    assert of_fork is not None
    assert of_whole is not None
    assert (fork.usage, whole.usage) == (RunUsage(), conversation.usage)
    assert (of_fork.forked_from, of_fork.forked_at, of_fork.scope) == ("chat", of_fork.head_id, "ada")
    assert (of_whole.usage, of_whole.scope) == (conversation.usage, "eve")


async def test_a_database_that_is_away_or_not_migrated_is_said(empty_postgres_url: str) -> None:
    away = DatabaseManager("postgresql+asyncpg://nobody@127.0.0.1:1/nothing")
    empty = DatabaseManager(empty_postgres_url)

    with pytest.raises(DatabaseUnavailableError):
        await DatabaseConversationStore(away).save(begun())
    with pytest.raises(DatabaseError, match="run: agent-service db upgrade"):
        await DatabaseConversationStore(empty).save(begun())
    await away.close()
    await empty.close()


async def test_the_database_of_the_settings_is_the_default(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from agent_service.core.settings import reset_settings  # noqa: PLC0415
    from agent_service.infrastructure.database import close_database  # noqa: PLC0415

    monkeypatch.setenv("DATABASE_URL", database_url)
    reset_settings()
    store = DatabaseConversationStore()
    await store.save(begun())

    assert len((await loaded(store)).messages) == 2
    await close_database()


async def test_a_transaction_that_was_overtaken_says_that_it_has_to_be_repeated(postgres_url: str) -> None:
    database = DatabaseManager(postgres_url, isolation_level="REPEATABLE READ")
    store = DatabaseConversationStore(database)
    await store.save(begun())

    async def overtaken(change: str) -> None:
        async with database.session() as db:
            conversation = await loaded(store.within(db))
            other = await loaded(store)
            other.messages += turn(1)
            await store.save(other)
            conversation.messages += turn(2)
            await (store.within(db).delete("chat") if change == "delete" else store.within(db).save(conversation))

    for change in ("save", "delete"):
        with pytest.raises(TransactionConflictError):
            await overtaken(change)
    kept = await loaded(store)
    await database.close()

    assert len(kept.messages) == 6


async def test_many_processes_may_work_by_way_of_a_pgbouncer(
    postgres_server: PostgresServer, postgres_url: str
) -> None:
    with running_pgbouncer(postgres_server) as port:
        databases = [DatabaseManager(by_way_of(port, postgres_url), pgbouncer=True) for _ in range(3)]
        stores = [DatabaseConversationStore(database) for database in databases]
        await stores[0].save(begun("first", turns=3))

        async def work(number: int) -> None:
            store, id_ = stores[number % 3], f"fork {number}"
            fork = await store.fork("first", at=number % 6, new_conversation_id=id_)
            fork.messages += turn(number)
            await store.save(fork)
            assert (await loaded(stores[(number + 1) % 3], id_)).messages == fork.messages
            await store.delete(id_)

        await asyncio.gather(*map(work, range(9)))
        await stores[1].delete("first")
        async with databases[2].session() as db:
            left = await db.scalar(text("SELECT count(*) FROM agent_service_conversation_entries"))
        for database in databases:
            await database.close()
    assert left == 0


async def test_isolation_that_the_application_chose_changes_nothing(postgres_url: str) -> None:
    database = DatabaseManager(postgres_url, isolation_level="SERIALIZABLE")
    store = DatabaseConversationStore(database)
    await store.save(begun("first", turns=2))
    await asyncio.gather(*(store.fork("first", at=number, new_conversation_id=f"{number}") for number in range(4)))
    await asyncio.gather(*(store.delete(id_) for id_ in ("first", "0", "1", "2", "3")))

    async with database.session() as db:
        left = await db.scalar(text("SELECT count(*) FROM agent_service_conversation_entries"))
    await database.close()
    assert left == 0


def test_without_the_framework_the_import_says_what_to_install() -> None:
    program = (
        "import sys; sys.modules['pydantic_ai.conversation_store'] = None; import agent_service; "
        "assert 'pydantic_ai' not in sys.modules; import agent_service.integrations.pydantic_ai"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)

    assert 'pip install "agent-service[pydantic-ai]"' in done.stderr
