"""The fourth document's examples of repositories run and do what the document says."""

from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any

import pytest
from pydantic import BaseModel

from agent_service import tenants
from agent_service.tenants import RedisSharedState, RedisStateHandler, RedisTable, RedisUser, _current_ss
from tests.house.document_e import EXAMPLES
from tests.house.snippets import run_block

Run = Callable[..., Awaitable[dict[str, Any]]]


class ConversationContext(BaseModel):
    greeted: bool


@pytest.fixture
def run() -> Run:
    """Run examples one after another in one namespace that has every repository, and give it."""

    async def run(*titles: str, **given: Any) -> dict[str, Any]:
        repositories = {name: getattr(tenants, name) for name in tenants.__all__ if name.startswith("Redis")}
        names = repositories | {"datetime": datetime} | given
        for title in titles:
            await run_block(EXAMPLES[title], names, filename=f"<{title}>")
        return names

    return run


async def test_the_quick_start_stores_reads_and_merges(run: Run):
    names = await run("basic repository usage")

    assert names["user_data"] == {"name": "Alice", "score": 100}
    assert await names["user"].get_field("score") == 110
    assert names["state"] == {"step": 1, "data": {"a": []}}
    assert names["final_state"] == {"step": 3, "data": {"a": []}}
    assert names["row"] == {"name": "Bob", "active": True}
    assert names["step"] == 1
    assert [await names[each].get_ttl() for each in ("user",)] == [pytest.approx(3600, abs=5)]
    assert await names["handler"].get_ttl("chat_handler") == pytest.approx(1800, abs=5)
    assert await names["tables"].get_ttl("users_table", "pk123") == pytest.approx(86400, abs=5)


async def test_the_context_example_binds_the_users_state_for_tools(run: Run):
    async def process_user_message(message: str) -> None:
        await _current_ss.get().set_field("conversation", "last", message)
        await names["SomeAsyncTool"]().execute()

    names = await run("context-aware shared state", process_user_message=process_user_message)

    await names["handle_user_request"]("acme", "ann", "hello")

    states = RedisSharedState("acme", "ann")
    assert await states.get("conversation") == {"last": "hello"}
    assert await states.get("tool_state") == {"last_tool": "SomeAsyncTool"}
    with pytest.raises(LookupError):
        _current_ss.get()


async def test_the_user_example_creates_deletes_counts_and_searches(run: Run):
    await RedisUser("your_tenant", "alice").upsert({"email": "alice@example.com"})

    names = await run("RedisUser")

    assert names["user_data"] == {"name": "Alice", "active": True}
    assert names["found_user"] == {"email": "alice@example.com"}
    assert names["exists"]
    assert await names["user"].get() == {"login_count": 1, "tags": ["premium"]}


async def test_the_state_handler_example_merges(run: Run):
    names = await run("RedisStateHandler")

    assert names["state"] == {"step": 1, "data": {"a": []}}
    assert names["final_state"] == {"step": 3, "data": {"a": []}}


async def test_the_table_example_changes_a_price_and_cleans_up(run: Run):
    tables = RedisTable("your_tenant")
    await tables.set("orders", "user_123", {})

    names = await run("RedisTable")

    assert names["product"] == {"name": "Widget", "price": 29.99}
    assert await tables.get("products", "prod_123") == {"name": "Widget", "price": 19.99}
    assert not await tables.exists("orders", "user_123")


async def test_the_shared_state_example_lists_and_clears(run: Run):
    names = await run("RedisSharedState")

    assert names["current_step"] == 2
    assert names["full_state"] == {
        "step": 2,
        "context": "user_greeting",
        "collected_data": {"name": "Alice"},
        "last_tool": "email_validator",
    }
    assert names["states"] == ["conversation", "form_progress", "tool_cache"]
    assert await names["shared_state"].list_states() == []


async def test_the_typed_example_gives_models(run: Run):
    user, handler = RedisUser("acme", "ann"), RedisStateHandler("acme", "ann")
    await user.upsert({"active": True})
    await handler.set("chat_handler", {"context": ConversationContext(greeted=True)})

    given = {"user": user, "handler": handler, "ConversationContext": ConversationContext}
    names = await run("models", "typed operations", **given)

    assert names["user_data"]["profile"] == names["profile"]
    assert names["user_data"]["profile"].active is True
    assert names["found_user"]["profile"] == names["profile"]
    assert names["state"] == {"context": ConversationContext(greeted=True)}


async def test_the_import_patterns_work(run: Run):
    names = await run("import patterns")

    assert names["current"]._current_ss is _current_ss
    assert names["loads"](names["dumps"]({"a": 1})) == {"a": 1}
