"""Conversations of the OpenAI SDK's SQLAlchemySession: what is read after an import is what the SDK read before."""

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent_service.core.errors import ConfigurationError, SessionValueError
from agent_service.infrastructure.database.engine import DatabaseManager
from agent_service.infrastructure.database.repositories import SessionRepository
from agent_service.integrations.importing import Options, import_openai
from agent_service.integrations.openai_agents import DatabaseSession, list_sessions
from tests.integrations.importing.filled import execute, fill_openai, openai_items, turn
from tests.support.depth import examples


async def ours(target: DatabaseManager, session_id: str, **options: Any) -> list[Any]:
    session = DatabaseSession(session_id, database=target, **{"user_id": "ada", **options})
    return list(await session.get_items())


async def test_every_item_is_read_as_the_sdk_read_it(target: DatabaseManager, source_url: str):
    conversations = {f"chat {n}": [item for k in range(n) for item in turn(k)] for n in range(1, 5)}
    await fill_openai(source_url, conversations)
    theirs = await openai_items(source_url, conversations)

    report = await import_openai(source_url, user_id="ada", options=Options(database=target))
    again = await import_openai(source_url, user_id="ada", options=Options(database=target))

    assert {each: await ours(target, each) for each in conversations} == theirs == conversations
    assert (report.added, report.items, report.items_added, report.changed) == (4, 50, 50, True)
    assert (again.added, again.unchanged, again.items, again.items_added, again.changed) == (0, 4, 50, 0, False)


async def test_what_the_source_gets_later_is_added_by_another_run(target: DatabaseManager, source_url: str):
    await fill_openai(source_url, {"a": turn(1), "b": turn(1)})
    await import_openai(source_url, user_id="ada", options=Options(database=target))
    await fill_openai(source_url, {"b": turn(2), "c": turn(1)})

    report = await import_openai(source_url, user_id="ada", options=Options(database=target))

    assert (report.added, report.extended, report.unchanged, report.items_added) == (1, 1, 1, 10)
    assert {each: await ours(target, each) for each in "abc"} == await openai_items(source_url, "abc")


async def test_a_conversation_that_goes_on_in_the_target_is_left_as_it_is(target: DatabaseManager, source_file: str):
    await fill_openai(source_file, {"a": turn(1)})
    await import_openai(source_file, user_id="ada", options=Options(database=target))
    session = DatabaseSession("a", user_id="ada", database=target)
    await session.add_items([*turn(1), *turn(2)])  # type: ignore[list-item]

    report = await import_openai(source_file, user_id="ada", options=Options(database=target))

    assert (report.unchanged, report.changed) == (1, False)
    # What has an id and was imported is the same item still; what has none is another one.
    without_id = [item for item in turn(1) if "id" not in item]
    assert await session.get_items() == [*turn(1), *without_id, *turn(2)]


async def test_tables_of_other_names_are_read(target: DatabaseManager, source_file: str):
    tables = {"sessions_table": "my sessions", "messages_table": "my messages"}
    await fill_openai(source_file, {"a": turn(1)}, **tables)

    with pytest.raises(ConfigurationError, match=r"no table 'agent_sessions'.*'my messages', 'my sessions'"):
        await import_openai(source_file, user_id="ada", options=Options(database=target))
    await import_openai(source_file, user_id="ada", options=Options(database=target), **tables)

    assert await ours(target, "a") == turn(1)


async def test_the_order_is_the_sdks_whatever_the_ids_and_moments_are(target: DatabaseManager, source_url: str):
    await fill_openai(source_url, {"a": [{"role": "user", "content": str(n)} for n in range(6)]})
    moments = ["2026-01-02 00:00:00", "2026-01-01 00:00:00", "2026-01-01 00:00:00", "2025-12-31 23:59:59.5"]
    ids = [f"(SELECT id FROM (SELECT id FROM agent_messages ORDER BY id LIMIT 1 OFFSET {n}) x)" for n in range(4)]
    await execute(
        source_url,
        *(
            f"UPDATE agent_messages SET created_at = '{moment}' WHERE id = {each}"
            for moment, each in zip(moments, ids, strict=True)
        ),
    )
    theirs = (await openai_items(source_url, ["a"]))["a"]
    assert [item["content"] for item in theirs] == ["3", "1", "2", "0", "4", "5"]

    await import_openai(source_url, user_id="ada", options=Options(database=target))

    assert await ours(target, "a") == theirs


async def test_moments_titles_and_owners_are_kept(target: DatabaseManager, source_url: str):
    await fill_openai(source_url, {"ada/1": turn(1), "bob/1": turn(1)})
    await execute(source_url, "UPDATE agent_messages SET created_at = '2026-02-03 04:05:06.5'")
    await execute(
        source_url, "UPDATE agent_sessions SET created_at = '2026-01-01 00:00:00', updated_at = '2026-03-01 00:00:00'"
    )

    await import_openai(
        source_url,
        user_id=lambda session_id: session_id.partition("/")[0],
        agent_id="trains",
        options=Options(database=target, tenant_id="acme"),
    )

    async with target.session() as db:
        session = await SessionRepository(db, "acme").get_by_external_id("bob/1")
        assert session is not None
        messages = await SessionRepository(db, "acme").get_messages(session.id)
    assert (session.user_id, session.agent_id, session.total_messages, session.last_seq) == ("bob", "trains", 5, 5)
    assert session.created_at.isoformat() == "2026-01-01T00:00:00+00:00"
    assert session.last_activity_at.isoformat() == "2026-03-01T00:00:00+00:00"
    assert {each.created_at.isoformat() for each in messages} == {"2026-02-03T04:05:06.500000+00:00"}
    assert await ours(target, "bob/1") == []
    assert await ours(target, "bob/1", user_id="bob", tenant_id="acme") == turn(1)
    page = await list_sessions("bob", database=target, tenant_id="acme")
    assert [each.external_id for each in page.items] == ["bob/1"]


async def test_items_whose_session_is_missing_come_too_and_empty_sessions(target: DatabaseManager, source_file: str):
    await fill_openai(source_file, {"a": turn(1), "orphan": turn(2), "empty": turn(3)})
    await execute(
        source_file,
        "DELETE FROM agent_sessions WHERE session_id = 'orphan'",
        "DELETE FROM agent_messages WHERE session_id = 'empty'",
    )

    report = await import_openai(source_file, user_id="ada", options=Options(database=target))

    assert (report.added, report.items) == (3, 10)
    assert await ours(target, "orphan") == turn(2)
    assert await ours(target, "empty") == []


async def test_the_same_item_twice_stays_twice(target: DatabaseManager, source_file: str):
    await fill_openai(source_file, {"a": [*turn(1), *turn(1)]})

    await import_openai(source_file, user_id="ada", options=Options(database=target))

    assert await ours(target, "a") == [*turn(1), *turn(1)]


async def test_the_owner_must_be_one(target: DatabaseManager, source_file: str):
    await fill_openai(source_file, {"a": turn(1)})

    with pytest.raises(SessionValueError, match="user_id"):
        await import_openai(source_file, user_id="", options=Options(database=target))


_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | _TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXT, inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=examples(4, 200), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    documents=st.lists(st.dictionaries(_TEXT.filter(lambda key: key not in {"role", "token_count"}), _JSON), max_size=8)
)
async def test_any_items_come_back_as_they_are(
    documents: list[dict[str, Any]], database_url: str, tmp_path_factory: pytest.TempPathFactory
):
    source = f"sqlite+aiosqlite:///{tmp_path_factory.mktemp('source')}/s.db"
    await fill_openai(source, {"a": documents or [{}]})
    tenant = source[-255:]
    target = DatabaseManager(database_url)
    try:
        await import_openai(source, user_id="ada", options=Options(database=target, tenant_id=tenant))
        found = await ours(target, "a", tenant_id=tenant)
    finally:
        await target.close()

    assert json.dumps(found) == json.dumps(documents or [{}])


async def test_the_source_is_read_in_pages_that_hold_some_megabytes(target: DatabaseManager, source_url: str):
    large = [{"role": "user", "content": f"{n}" + "x" * 1_000_000} for n in range(6)]
    await fill_openai(source_url, {"a": large, "b": [{"role": "user", "content": "y" * 4_500_000}]})

    report = await import_openai(source_url, user_id="ada", options=Options(database=target))

    assert report.items_added == 7
    assert await ours(target, "a") == large
