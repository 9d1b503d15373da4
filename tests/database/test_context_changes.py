"""Contexts lose keys, merge deeply, are set by path and counted, atomically and the same on both engines."""

import asyncio
import math
from copy import deepcopy
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
from tests.database.test_context import CONTEXTS, JSON, TEXT
from tests.support.depth import examples

CHANGES = st.lists(
    st.one_of(
        st.tuples(st.just("shallow"), CONTEXTS, st.lists(TEXT, max_size=2)),
        st.tuples(st.just("deep"), CONTEXTS, st.just([])),
        st.tuples(st.just("path"), st.lists(TEXT, min_size=1, max_size=3), JSON),
        st.tuples(st.just("add"), TEXT, st.integers() | st.floats(-1e300, 1e300)),
    ),
    max_size=5,
)


def deeply(base: dict[str, Any], patch: dict[str, Any]) -> dict[str, Any]:
    both = {key: deeply(base[key], value) for key, value in patch.items() if _objects(base.get(key), value)}
    return {**base, **patch, **both}


def _objects(*values: Any) -> bool:
    return all(isinstance(each, dict) for each in values)


def follow(context: dict[str, Any], path: list[str], value: Any) -> bool:
    """Set a value in place, as Python would; False: something on the way is no dict."""
    *way, last = path
    for step in way:
        context = context.setdefault(step, {})
        if not isinstance(context, dict):
            return False
    context[last] = value
    return True


@settings(max_examples=examples(12, 30), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(first=CONTEXTS, changes=CHANGES)
async def test_any_changes_equal_what_python_does(
    database: DatabaseManager, first: dict[str, Any], changes: list[Any]
) -> None:
    async with database.session() as db:
        repo = SessionRepository(db)
        session = await repo.create(Session(user_id="ada", context=first))
        expected, version = first, 1
        for kind, what, extra in changes:
            before = expected
            try:
                expected = await change(repo, session, kind, what, extra, expected)
                version += 1
            except SessionValueError:
                expected = before
            assert session.context == expected
            assert session.version == version

    async with database.session() as db:
        found = await SessionRepository(db).get(session.id)
    assert found is not None
    assert (found.context, found.version) == (expected, version)


async def change(
    repo: SessionRepository, session: Session, kind: str, what: Any, extra: Any, context: dict[str, Any]
) -> dict[str, Any]:
    """Do it to both, and give what the context should be now."""
    if kind == "shallow":
        deleted = [key for key in extra if key not in what]
        await repo.update_session_context(session.id, what, delete_keys=deleted)
        return {**{key: value for key, value in context.items() if key not in deleted}, **what}
    if kind == "deep":
        await repo.update_session_context(session.id, what, deep=True)
        return deeply(context, what)
    if kind == "path":
        copy = deepcopy(context)
        possible = follow(copy, what, extra)
        if not possible:
            with pytest.raises(SessionValueError, match="cannot be followed"):
                await repo.set_session_context_path(session.id, what, extra)
            raise SessionValueError
        await repo.set_session_context_path(session.id, what, extra)
        return copy
    total = await repo.increment_session_context(session.id, what, extra)
    assert total == context.get(what, 0) + extra
    return {**context, what: total}


async def test_keys_leave_and_objects_merge(repo: SessionRepository, new_session: NewSession) -> None:
    session = await new_session(context={"a": {"x": 1, "deep": {"p": 1}}, "b": [1], "c": None})

    assert await repo.update_session_context(session.id, {"d": 1}, delete_keys=("c", "missing")) == {
        "a": {"x": 1, "deep": {"p": 1}}, "b": [1], "d": 1,
    }  # fmt: skip
    assert await repo.update_session_context(
        session.id, {"a": {"y": None, "deep": {"q": 2}}, "b": [2]}, deep=True, delete_keys=["d"]
    ) == {"a": {"x": 1, "y": None, "deep": {"p": 1, "q": 2}}, "b": [2]}
    assert await repo.update_session_context(session.id, {}, delete_keys=["a", "b"]) == {}


async def test_a_path_makes_objects_and_steps_into_lists(repo: SessionRepository, new_session: NewSession) -> None:
    session = await new_session(context={"items": [{"n": 1}, {"n": 2}]})

    await repo.set_session_context_path(session.id, "profile.city", "Łódź")
    await repo.set_session_context_path(session.id, ["items", 1, "n"], None)
    context = await repo.set_session_context_path(session.id, ["a.b"], {"c": []})

    assert context == session.context
    assert context == {"items": [{"n": 1}, {"n": None}], "profile": {"city": "Łódź"}, "a.b": {"c": []}}


@pytest.mark.parametrize(
    ("path", "value", "complaint"),
    [
        (["items", 2], 1, "list of 1"),
        (["items", "n"], 1, "list of 1"),
        ("number.x", 1, "int where 'x'"),
        ([0], 1, "dict where 0"),
        ([], 1, "path must"),
        ("", 1, None),
        ([True], 1, r"path\[0\]"),
        ([-1], 1, r"path\[0\]"),
        (7, 1, "path must"),
        (b"ab", 1, "path must"),
        ("a", {"x": float("nan")}, r"context.a.x"),
        ("a", "\x00", "U\\+0000"),
        ("a\x00", 1, "U\\+0000"),
    ],
)
async def test_a_path_that_leads_nowhere_changes_nothing(
    repo: SessionRepository, new_session: NewSession, path: Any, value: Any, complaint: str | None
) -> None:
    session = await new_session(context={"items": [1], "number": 7})

    if complaint is None:
        assert (await repo.set_session_context_path(session.id, path, value))[""] == value
        return
    with pytest.raises(SessionValueError, match=complaint):
        await repo.set_session_context_path(session.id, path, value)

    assert (await repo.get(session.id)).context == {"items": [1], "number": 7}  # type: ignore[union-attr]
    assert session.version == 1


async def test_numbers_are_counted_exactly(repo: SessionRepository, new_session: NewSession) -> None:
    session = await new_session(context={"f": 0.5, "big": 2**100, "text": "1", "flag": True})

    assert await repo.increment_session_context(session.id, "n") == 1
    assert await repo.increment_session_context(session.id, "n", -3) == -2
    assert await repo.increment_session_context(session.id, "f", 1) == 1.5
    assert await repo.increment_session_context(session.id, "big", 1) == 2**100 + 1
    for name in ("text", "flag"):
        with pytest.raises(SessionValueError, match=f"'{name}'.*no number"):
            await repo.increment_session_context(session.id, name)
    for amount in (math.inf, math.nan, True, "1", None):
        with pytest.raises(SessionValueError, match="amount"):
            await repo.increment_session_context(session.id, "n", amount)  # type: ignore[arg-type]

    assert session.context == {"f": 1.5, "big": 2**100 + 1, "text": "1", "flag": True, "n": -2}


async def test_a_sum_out_of_range_is_refused(repo: SessionRepository, new_session: NewSession) -> None:
    session = await new_session(context={"f": 1.7e308, "big": 10**400})

    with pytest.raises(SessionValueError, match="range"):
        await repo.increment_session_context(session.id, "f", 1.7e308)
    with pytest.raises(SessionValueError, match="range"):
        await repo.increment_session_context(session.id, "big", 0.5)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"delete_keys": "abc"}, "delete_keys"),
        ({"delete_keys": [1]}, r"delete_keys\[0\]"),
        ({"delete_keys": ["a"]}, "delete_keys holds 'a'"),
        ({"delete_keys": 7}, "delete_keys"),
    ],
)
async def test_keys_to_delete_are_checked(
    repo: SessionRepository, new_session: NewSession, changes: dict[str, Any], complaint: str
) -> None:
    session = await new_session()

    with pytest.raises(SessionValueError, match=complaint):
        await repo.update_session_context(session.id, {"a": 1}, **changes)


async def test_the_expected_version_holds_for_every_form(repo: SessionRepository, new_session: NewSession) -> None:
    session = await new_session(context={"a": {"x": 1}})

    await repo.update_session_context(session.id, {"a": {"y": 1}}, deep=True, expected_version=1)
    with pytest.raises(SessionConflictError, match="version 2"):
        await repo.update_session_context(session.id, {}, delete_keys=["a"], expected_version=1)

    assert session.context == {"a": {"x": 1, "y": 1}}
    with pytest.raises(SessionNotFoundError):
        await repo.increment_session_context(uuid4(), "n")


async def test_changes_at_the_same_time_all_stay(database: DatabaseManager) -> None:
    async with database.session() as db:
        session = await SessionRepository(db).create(Session(user_id="ada", context={"nested": {}}))

    async def change(number: int) -> None:
        async with database.session() as db:
            repo = SessionRepository(db)
            await repo.increment_session_context(session.id, "count", 2)
            await repo.update_session_context(session.id, {"nested": {str(number): number}}, deep=True)
            await repo.set_session_context_path(session.id, ["paths", str(number)], None)

    await asyncio.gather(*map(change, range(12)))

    async with database.session() as db:
        found = await SessionRepository(db).get(session.id)
    assert found is not None
    assert found.context == {
        "count": 24,
        "nested": {str(number): number for number in range(12)},
        "paths": {str(number): None for number in range(12)},
    }
    assert found.version == 37
