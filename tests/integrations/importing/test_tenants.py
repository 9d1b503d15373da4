"""Imports are of one tenant: another one's conversations of the same names are neither seen nor changed."""

from collections.abc import AsyncIterator

import pytest
from sqlalchemy import text

from agent_service.context.database import DatabaseContextStore
from agent_service.infrastructure.database.engine import DatabaseManager
from agent_service.infrastructure.database.naming.engines import names_of
from agent_service.infrastructure.database.repositories import SessionRepository
from agent_service.integrations.adk import AdkSessionService
from agent_service.integrations.adk.identity import app_key
from agent_service.integrations.importing import (
    ImportStoppedError,
    Options,
    import_adk,
    import_langgraph,
    import_openai,
)
from agent_service.integrations.langgraph import AgentServiceSaver
from agent_service.integrations.openai_agents import DatabaseSession
from tests.integrations.importing.adk_filled import fill_adk
from tests.integrations.importing.filled import execute, fill_openai, turn
from tests.integrations.importing.graphs import fill_threads, tuples_of

OTHER = [{"role": "user", "content": "of another tenant"}]


@pytest.fixture
async def bound(database_url: str) -> AsyncIterator[DatabaseManager]:
    """The database as a service uses it: on PostgreSQL by a role that policies of row-level security bind."""
    if database_url.startswith("sqlite"):
        database = DatabaseManager(database_url)
        yield database
        await database.close()
        return
    owner = DatabaseManager(database_url)
    async with owner.session() as db:
        schema = (await (await db.connection()).run_sync(names_of)).schema
        await db.execute(text("CREATE ROLE importer LOGIN"))
        await db.execute(text(f'GRANT USAGE ON SCHEMA "{schema}" TO importer'))
        await db.execute(text(f'GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA "{schema}" TO importer'))
    await owner.switch_row_security(on=True)
    database = DatabaseManager(database_url.replace("postgres@", "importer@", 1), row_security=True)
    yield database
    await database.close()
    async with owner.session() as db:
        await db.execute(text("DROP OWNED BY importer"))
        await db.execute(text("DROP ROLE importer"))
    await owner.close()


async def test_conversations_become_one_tenants(bound: DatabaseManager, source_file: str):
    await DatabaseSession("a", user_id="bob", database=bound).add_items(OTHER)  # type: ignore[arg-type]
    await fill_openai(source_file, {"a": turn(1), "b": turn(2)})

    report = await import_openai(source_file, user_id="ada", options=Options(database=bound, tenant_id="acme"))
    again = await import_openai(source_file, user_id="ada", options=Options(database=bound, tenant_id="acme"))

    assert (report.added, again.unchanged) == (2, 2)
    mine = DatabaseSession("a", user_id="ada", tenant_id="acme", database=bound)
    assert await mine.get_items() == turn(1)
    assert await DatabaseSession("a", user_id="bob", database=bound).get_items() == OTHER
    async with bound.session() as db:
        assert await SessionRepository(db).get_by_external_id("b") is None


async def test_state_and_sessions_of_adk_become_one_tenants(bound: DatabaseManager, source_file: str):
    states = DatabaseContextStore(session_factory=bound.session)
    await states.set(app_key("", "app"), {"count": "of another tenant"})
    await fill_adk(source_file, {("app", "ada", "s1"): 1})

    await import_adk(source_file, options=Options(database=bound, tenant_id="acme"))

    key = {"app_name": "app", "user_id": "ada"}
    async with AdkSessionService(bound, tenant_id="acme") as mine, AdkSessionService(bound) as others:
        assert len((await mine.list_sessions(**key)).sessions) == 1
        assert (await others.list_sessions(**key)).sessions == []
    assert await states.get(app_key("", "app")) == {"count": "of another tenant"}


async def test_threads_become_one_tenants(bound: DatabaseManager, source_file: str):
    await fill_threads(source_file, ["a"])

    await import_langgraph(source_file, options=Options(database=bound, tenant_id="acme"))
    again = await import_langgraph(source_file, options=Options(database=bound, tenant_id="acme"))

    assert again.unchanged == 1
    async with AgentServiceSaver(bound) as others:
        assert await tuples_of(others, ["a"]) == {"a": []}
        assert len((await tuples_of(others.for_tenant("acme"), ["a"]))["a"]) > 3


async def test_positions_of_tenants_are_apart(bound: DatabaseManager, source_file: str):
    await fill_openai(source_file, {"a": turn(1), "b": turn(1)})
    await execute(source_file, "UPDATE agent_messages SET message_data = '{' WHERE session_id = 'b'")
    for tenant in ("", "acme"):
        with pytest.raises(ImportStoppedError) as stopped:
            await import_openai(source_file, user_id="ada", options=Options(database=bound, tenant_id=tenant))

        assert (stopped.value.report.earlier, stopped.value.report.added) == (0, 1)
