"""Before revision 0012 this version's services work; only what needs its columns asks for the upgrade."""

import pytest

from agent_service.context.database import DatabaseContextStore
from agent_service.core.errors import ContextStoreError, DatabaseError
from agent_service.infrastructure.database.append.writer import SessionWriter
from agent_service.infrastructure.database.engine import DatabaseManager
from agent_service.infrastructure.database.maintenance import CleanupCounts, cleanup_once
from agent_service.infrastructure.database.repositories import SessionRepository


async def test_only_what_needs_the_new_columns_asks_for_the_upgrade(empty_postgres_url: str) -> None:
    database = DatabaseManager(empty_postgres_url)
    await database.upgrade("agent_service_0011")
    contexts = DatabaseContextStore(session_factory=database.session)

    async with database.session() as db:
        repo = SessionRepository(db)
        session = await repo.get_or_create("chat", user_id="ada")
        await repo.add_messages_to_session(session.id, [{"type": "reasoning"}] * 3, role="assistant")
        await repo.pop_message(session.id)
        await contexts.within(db).set("a", {"n": 1})
    async with SessionWriter(database) as writer:
        added = await writer.append(session.id, {"type": "reasoning"}, role="assistant")
    cleaned = await cleanup_once(database=database)

    assert added.seq == 4
    assert cleaned == CleanupCounts()
    assert await contexts.get("a") == {"n": 1}
    with pytest.raises(ContextStoreError, match="run agent-service db upgrade"):
        await contexts.set("b", {}, ttl=60)
    with pytest.raises(DatabaseError, match="run: agent-service db upgrade"):
        async with database.session() as db:
            await SessionRepository(db).clear_messages(session.id)
    await database.upgrade()
    async with database.session() as db:
        assert await SessionRepository(db).clear_messages(session.id) == 3
    await DatabaseContextStore(session_factory=database.session).set("b", {}, ttl=60)
    await database.close()
