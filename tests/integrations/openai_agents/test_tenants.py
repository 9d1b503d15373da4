"""A second tenant, with everything it may know of a first one: it finds and changes nothing. On both engines."""

import inspect
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import Any

import pytest

from agent_service.core.errors import AgentServiceError
from agent_service.infrastructure.database.append.writer import SessionWriter
from agent_service.infrastructure.database.engine import DatabaseManager
from agent_service.integrations.openai_agents import DatabaseSession, list_sessions, search_items
from tests.integrations.openai_agents.conftest import NewSession
from tests.integrations.openai_agents.samples import call, output, reply, said
from tests.integrations.openai_agents.test_beyond import ran

SECRET = "the code is 4711"
THEIRS = [said(SECRET), call("c1", "fc_1"), output("c1", SECRET), reply(SECRET, "msg_1")]


async def _snapshot(session: DatabaseSession) -> Any:
    snapshot = await session._get_compaction_snapshot(10)
    assert snapshot is not None
    return snapshot.items, await snapshot.replace_suffix(0, [])


async def _follow(session: DatabaseSession) -> Any:
    async with aclosing(session.follow()) as feed:
        await session.add_items([said("own")])
        return [await anext(feed) for _ in range(4)]


CALLS: dict[str, Callable[[DatabaseSession], Awaitable[Any]]] = {
    "get_items": lambda session: session.get_items(),
    "read_items": lambda session: session.read_items(),
    "pop_item": lambda session: session.pop_item(),
    "clear_session": lambda session: session.clear_session(),
    "fork": lambda session: session.fork("chat", at="fc_1"),
    "usage": lambda session: session.usage(),
    "_get_compaction_snapshot": _snapshot,
    "_atomic_replace_items": lambda session: session._atomic_replace_items([]),
    "add_items": lambda session: session.add_items(THEIRS[1:]),
    "record_usage": lambda session: session.record_usage(ran(("r1", 5))),
    "follow": _follow,
}


def test_every_method_is_driven_here() -> None:
    methods = {name for name, _ in inspect.getmembers(DatabaseSession, inspect.isfunction)}

    assert {name for name in methods if not name.startswith("_")} <= set(CALLS) <= methods


@pytest.mark.parametrize("tenant_id", ["", "second"])
async def test_another_tenant_finds_and_changes_nothing(
    new: NewSession, database: DatabaseManager, writer: SessionWriter | None, tenant_id: str
) -> None:
    first = new(tenant_id="first", writer=writer)
    await first.add_items(THEIRS)
    await first.record_usage(ran(("r1", 1000)))
    numbered, usage = await first.read_items(), await first.usage()

    for name, attempt in CALLS.items():
        try:
            told = await attempt(new(tenant_id=tenant_id, writer=writer))
        except AgentServiceError as exc:
            told = exc
        if name == "follow":
            assert [each.item for each in told] == [*THEIRS[1:], said("own")]
        else:
            assert SECRET not in repr(told), name
        if name not in {"add_items", "record_usage", "follow"}:
            assert await new(tenant_id=tenant_id).get_items() == [], name
    assert await search_items("ada", "4711", tenant_id="nobody", database=database) == []
    second = await list_sessions("ada", tenant_id=tenant_id, database=database)

    assert [(each.tenant_id, each.external_id) for each in second.items] == [(tenant_id, "chat")]
    assert await new(tenant_id=tenant_id).get_items() == [*THEIRS[1:], said("own")]
    assert (await new(tenant_id=tenant_id).usage()).total.input_tokens == 5
    assert await first.read_items() == numbered
    assert await first.usage() == usage
