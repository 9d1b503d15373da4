"""With row-level security, where every transaction says its tenant first, and behind pgbouncer's way of working."""

import pytest

from agent_service.infrastructure.database.append.writer import SessionWriter
from agent_service.infrastructure.database.engine import DatabaseManager
from agent_service.integrations.openai_agents import DatabaseSession
from tests.integrations.openai_agents.samples import call, output, said


@pytest.mark.parametrize("options", [{"row_security": True}, {"pgbouncer": True}], ids=lambda each: next(iter(each)))
async def test_every_method_works_for_its_tenant(postgres_url: str, options: dict[str, bool]) -> None:
    database = DatabaseManager(postgres_url, **options)  # type: ignore[arg-type]
    async with SessionWriter(database) as writer:
        for way in (None, writer):
            session = DatabaseSession(f"{way}", user_id="ada", tenant_id="acme", database=database, writer=way)
            await session.add_items([said("a"), call("c1", "fc_1"), output("c1")])
            await session.add_items([call("c1", "fc_1"), output("c1")])
            assert await (await session.fork(f"fork of {way}", at=1)).get_items() == [said("a")]
            assert await session.pop_item() == output("c1")
            snapshot = await session._get_compaction_snapshot(1)
            assert snapshot is not None
            assert await snapshot.replace_suffix(0, [said("b")])
            assert await session.get_items() == [said("a"), said("b")]
            await session.clear_session()
            assert await session.get_items(5) == []
    await database.close()
