"""Contexts merge atomically and come back equal; the same on both engines."""

import asyncio
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent_service.core.errors import SessionConflictError, SessionNotFoundError, SessionValueError
from agent_service.infrastructure.database.engine import DatabaseManager
from agent_service.infrastructure.database.models.session import Session
from agent_service.infrastructure.database.repositories import SessionRepository
from tests.database.conftest import NewSession
from tests.support.depth import examples

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=20)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=10,
)
CONTEXTS = st.dictionaries(TEXT, JSON, max_size=4)


@settings(max_examples=examples(12, 40), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(first=CONTEXTS, patches=st.lists(CONTEXTS, max_size=4))
async def test_merging_equals_a_dict_update(
    database: DatabaseManager, first: dict[str, Any], patches: list[dict[str, Any]]
) -> None:
    expected = dict(first)
    async with database.session() as db:
        repo = SessionRepository(db)
        session = await repo.create(Session(user_id="ada", context=first))
        for patch in patches:
            expected.update(patch)
            assert await repo.update_session_context(session.id, patch) == expected
        assert session.context == (expected if patches else first)

    async with database.session() as db:
        found = await SessionRepository(db).get(session.id)

    assert found is not None
    assert found.context == expected
    assert found.version == 1 + len(patches)


async def test_nested_objects_are_replaced_and_none_is_a_value(
    repo: SessionRepository, new_session: NewSession
) -> None:
    session = await new_session(context={"a": {"x": 1}, "b": 1})

    merged = await repo.update_session_context(session_id=session.id, context={"a": {"y": 2}, "b": None})

    assert merged == {"a": {"y": 2}, "b": None}


@pytest.mark.parametrize("number", [1e23, 1.5e300, 1e16, -2.5e22, 1e-7, 0.1, 5e-324, 2**200, 100.0])
async def test_numbers_keep_their_value_and_kind(
    repo: SessionRepository, new_session: NewSession, number: float
) -> None:
    session = await new_session(context={"n": number})

    merged = await repo.update_session_context(session.id, {"m": [number], "text": "1e+23"})

    assert merged == {"n": number, "m": [number], "text": "1e+23"}
    assert type(merged["n"]) is type(merged["m"][0]) is type(number)


async def test_the_expected_version_is_kept_or_refused(repo: SessionRepository, new_session: NewSession) -> None:
    session = await new_session()

    await repo.update_session_context(session.id, {"a": 1}, expected_version=1)
    with pytest.raises(SessionConflictError, match="version 2"):
        await repo.update_session_context(session.id, {"a": 2}, expected_version=1)

    assert session.context == {"a": 1}
    assert session.version == 2


async def test_an_unknown_session_is_named(repo: SessionRepository) -> None:
    unknown = uuid4()
    with pytest.raises(SessionNotFoundError, match=str(unknown)):
        await repo.update_session_context(unknown, {"a": 1})


@pytest.mark.parametrize(
    ("context", "path"),
    [
        ({"a": "x\x00y"}, "context.a "),
        ({"a": [{"b\x00": 1}]}, r"key of context.a\[0\]"),
        ({"a": {"b": "\ud800"}}, "context.a.b "),
        ({"a": [1, float("nan")]}, r"context.a\[1\]"),
        ({"a": float("inf")}, "context.a "),
        ({"a": {1, 2}}, "context.a "),
        ({"a": (1, 2)}, "context.a "),
        ({1: 2}, "context has a key"),
        ({"odd key": object()}, r"context\['odd key'\]"),
        ([], "context must be a dict"),
    ],
)
async def test_what_cannot_be_kept_is_refused_by_path(
    repo: SessionRepository, new_session: NewSession, context: Any, path: str
) -> None:
    session = await new_session()

    with pytest.raises(SessionValueError, match=path):
        await repo.update_session_context(session.id, context)
    if isinstance(context, dict):
        with pytest.raises(SessionValueError, match=path):
            await new_session(context=context)

    assert session.version == 1


async def test_a_hundred_concurrent_merges_all_stay(database: DatabaseManager) -> None:
    async with database.session() as db:
        session = await SessionRepository(db).create(Session(user_id="ada"))

    async def merge(number: int) -> None:
        async with database.session() as db:
            await SessionRepository(db).update_session_context(session.id, {f"key{number}": number})

    await asyncio.gather(*map(merge, range(100)))

    async with database.session() as db:
        found = await SessionRepository(db).get(session.id)
    assert found is not None
    assert found.context == {f"key{number}": number for number in range(100)}
    assert found.version == 101
