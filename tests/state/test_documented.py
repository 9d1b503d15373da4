"""The third document's examples run as written, on every store, and do what the document says."""

import inspect
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Optional

import pytest

from agent_service.state import (
    ChatMessage,
    CoachContext,
    CoachingState,
    DynamoDBStateStore,
    FileStateStore,
    InMemoryStateStore,
    RedisStateStore,
    SQLStateStore,
    StateStore,
)
from tests.house.snippets import run_block
from tests.state.document_d import EXAMPLES


@pytest.fixture(params=["memory", "file", "sql", "redis", "dynamodb"])
async def make_store(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], StateStore]:
    """What stands for the document's ``InMemoryStateStore()``; the others are those it plans."""
    if request.param == "memory":
        return InMemoryStateStore
    if request.param == "file":
        return lambda: FileStateStore(tmp_path)
    if request.param == "sql":
        return lambda: SQLStateStore(url=f"sqlite+aiosqlite:///{tmp_path / 'state.db'}")
    if request.param == "redis":
        url = request.getfixturevalue("redis_url")
        return lambda: RedisStateStore(url=url)
    url, table = request.getfixturevalue("dynamodb_url"), request.getfixturevalue("table")
    async with DynamoDBStateStore(table, endpoint_url=url) as store:
        await store.create_table()
    return lambda: DynamoDBStateStore(table, endpoint_url=url)


async def test_the_usage_runs_from_loading_to_saving_and_back(make_store: Callable[[], StateStore]):
    chat_message = ChatMessage(role="user", content="I want to explore my creative identity")
    names: dict[str, Any] = {
        "InMemoryStateStore": make_store,
        "CoachContext": CoachContext,
        "CoachingState": CoachingState,
        "chat_message": chat_message,
    }
    await run_block(EXAMPLES["loading a context"], names, filename="<loading a context>")
    assert names["context"] == CoachContext(user_id="user-123")
    assert "current_state" not in names
    await run_block(EXAMPLES["saving a context"], names, filename="<saving a context>")

    store = names["state_store"]
    found = await store.load_context("user-123")
    await store.aclose()

    assert found.current_state is CoachingState.IDENTITY_BRAINSTORMING
    assert found.conversation_history == [chat_message]


async def test_a_context_that_exists_is_used():
    store = InMemoryStateStore()
    await store.save_context(CoachContext(user_id="user-123", current_state=CoachingState.ACCOUNTABILITY))
    names: dict[str, Any] = {"InMemoryStateStore": lambda: store, "CoachContext": CoachContext}

    await run_block(EXAMPLES["loading a context"], names, filename="<loading a context>")

    assert names["current_state"] is CoachingState.ACCOUNTABILITY


async def test_the_interface_is_the_documented_one_and_more():
    names: dict[str, Any] = {"Optional": Optional, "CoachContext": CoachContext}
    for title in ("state store interface", "in memory implementation"):
        await run_block(EXAMPLES[title], names, filename=f"<{title}>")

    for method in ("load_context", "save_context"):
        documented = inspect.signature(getattr(names["StateStore"], method))
        ours = inspect.signature(getattr(StateStore, method))
        assert inspect.iscoroutinefunction(getattr(StateStore, method))
        assert list(ours.parameters)[: len(documented.parameters)] == list(documented.parameters)
        assert all(
            each.default is not each.empty for each in list(ours.parameters.values())[len(documented.parameters) :]
        )
    assert issubclass(InMemoryStateStore, StateStore)


def test_a_coaching_context_holds_what_the_document_lists():
    fields = CoachContext(user_id="user-123").model_dump()

    assert fields == {
        "user_id": "user-123",
        "current_state": CoachingState.INTRODUCTION,
        "conversation_history": [],
        "consolidated_summary": "",
        "user_profile": None,
        "metadata": {},
        "version": 0,
        "schema_version": 1,
    }
    assert [each.value for each in CoachingState] == [
        "introduction",
        "identity_brainstorming",
        "identity_refinement",
        "identity_visualization",
        "action_planning",
        "accountability",
    ]


def test_dynamodbs_driver_is_loaded_only_when_it_is_used():
    program = "import agent_service.state, sys; print(*sys.modules)"

    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()

    assert {"aioboto3", "botocore"}.isdisjoint(loaded)
