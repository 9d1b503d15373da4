"""With row-level security in force: every call says its tenant, and the writer's batches do."""

from collections.abc import AsyncIterator

import pytest
from google.adk.errors import StaleSessionError
from google.adk.errors.session_not_found_error import SessionNotFoundError
from sqlalchemy import text

from agent_service.infrastructure.database.engine import DatabaseManager
from agent_service.infrastructure.database.naming.engines import names_of
from agent_service.integrations.adk import AdkMemoryService, AdkSessionService
from tests.integrations.adk.said import APP, USER, read, said, texts

ROLE = "adk_service"


@pytest.fixture
async def bound(postgres_url: str) -> AsyncIterator[DatabaseManager]:
    """The database as a role that policies bind."""
    owner = DatabaseManager(postgres_url)
    async with owner.session() as db:
        await db.execute(text(f"CREATE ROLE {ROLE} LOGIN"))
        schema = (await (await db.connection()).run_sync(names_of)).schema
        await db.execute(text(f'GRANT USAGE ON SCHEMA "{schema}" TO {ROLE}'))
        await db.execute(text(f'GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA "{schema}" TO {ROLE}'))
    await owner.switch_row_security(on=True)
    database = DatabaseManager(postgres_url.replace("postgres@", f"{ROLE}@", 1), row_security=True)
    yield database
    await database.close()
    async with owner.session() as db:
        await db.execute(text(f"DROP OWNED BY {ROLE}"))
        await db.execute(text(f"DROP ROLE {ROLE}"))
    await owner.close()


async def test_two_tenants_of_one_database_do_all_that_adk_asks(bound: DatabaseManager):
    services = [AdkSessionService(bound, tenant_id=tenant) for tenant in ("", "acme")]
    for number, service in enumerate(services):
        state = {"app:a": number, "user:b": number, "c": number}
        session = await service.create_session(app_name=APP, user_id=USER, session_id="s1", state=state)
        stale = session.model_copy(deep=True)
        await service.append_event(session, said(f"ferry {number}", state={"c": number + 10}))
        await service.append_event(session, said("shared", state={"app:a": number + 20, "user:b": number + 30}))
        with pytest.raises(StaleSessionError):
            await service.append_event(stale, said("late"))
        assert await read(service, session) == session
        assert [each.state for each in (await service.list_sessions(app_name=APP)).sessions] == [session.state]
        memory = AdkMemoryService(bound, tenant_id=service._tenant_id)
        await memory.add_session_to_memory(session)
        found = await memory.search_memory(app_name=APP, user_id=USER, query="ferry")
        assert [entry.content.parts[0].text for entry in found.memories if entry.content.parts] == [f"ferry {number}"]

    ours, theirs = services
    foreign = await theirs.get_session(app_name=APP, user_id=USER, session_id="s1")
    assert foreign is not None
    with pytest.raises(SessionNotFoundError):
        await ours.append_event(foreign, said())
    assert await ours.forget_user(app_name=APP, user_id=USER) == 1
    assert texts(await read(theirs, foreign)) == ["ferry 1", "shared"]
    for service in services:
        await service.close()
