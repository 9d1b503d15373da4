"""Metadata changes as contexts do: replaced, merged and set by path, atomically; the same on both engines."""

import asyncio
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given, settings

from agent_service.core.errors import SessionConflictError, SessionNotFoundError, SessionValueError
from agent_service.infrastructure.database.engine import DatabaseManager
from agent_service.infrastructure.database.models.session import Session
from agent_service.infrastructure.database.repositories import SessionRepository
from tests.database.conftest import NewSession
from tests.database.test_context import CONTEXTS
from tests.database.test_context_changes import deeply
from tests.support.depth import examples

KINDS = ("context", "metadata")


def update(repo: SessionRepository, kind: str) -> Any:
    return getattr(repo, f"update_session_{kind}")


def replace(repo: SessionRepository, kind: str) -> Any:
    return getattr(repo, f"set_session_{kind}")


def set_path(repo: SessionRepository, kind: str) -> Any:
    return getattr(repo, f"set_session_{kind}_path")


def document(session: Session, kind: str) -> Any:
    return {"context": session.context, "metadata": session.session_metadata}[kind]


@settings(max_examples=examples(12, 30), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(first=CONTEXTS, patch=CONTEXTS, deep_patch=CONTEXTS, whole=CONTEXTS)
async def test_changes_of_metadata_equal_what_python_does(
    database: DatabaseManager, first: Any, patch: Any, deep_patch: Any, whole: Any
) -> None:
    async with database.session() as db:
        repo = SessionRepository(db)
        session = await repo.create(Session(user_id="ada", metadata=first))
        merged = await repo.update_session_metadata(session.id, patch)
        deep = await repo.update_session_metadata(session.id, deep_patch, deep=True)
        replaced = await repo.set_session_metadata(session.id, whole)

    async with database.session() as db:
        found = await SessionRepository(db).get(session.id)

    assert merged == first | patch
    assert deep == deeply(first | patch, deep_patch)
    assert replaced == whole
    assert list(replaced) == list(whole)
    assert found is not None
    assert (found.session_metadata, found.context, found.version) == (whole, {}, 4)


async def test_keys_are_deleted_and_paths_are_set(repo: SessionRepository, new_session: NewSession) -> None:
    session = await new_session(metadata={"a": 1, "b": {"c": [1]}})

    deleted = await repo.update_session_metadata(session.id, {"d": None}, delete_keys=["a", "none"])
    at_path = await repo.set_session_metadata_path(session.id, ["b", "c", 0], "x\x00")

    assert deleted == {"b": {"c": [1]}, "d": None}
    assert at_path == session.session_metadata == {"b": {"c": ["x\x00"]}, "d": None}


@pytest.mark.parametrize("kind", KINDS)
async def test_every_change_takes_an_expected_version(
    repo: SessionRepository, new_session: NewSession, kind: str
) -> None:
    session = await new_session()

    await update(repo, kind)(session.id, {"a": 1}, expected_version=1)
    await set_path(repo, kind)(session.id, "b", 2, expected_version=2)
    await replace(repo, kind)(session.id, {"c": 3}, expected_version=3)
    for change in (
        update(repo, kind)(session.id, {"a": 9}, expected_version=3),
        update(repo, kind)(session.id, {"a": 9}, deep=True, expected_version=3),
        set_path(repo, kind)(session.id, "b", 9, expected_version=3),
        replace(repo, kind)(session.id, {}, expected_version=3),
    ):
        with pytest.raises(SessionConflictError, match="is at version 4, expected was 3"):
            await change

    assert document(session, kind) == {"c": 3}
    assert session.version == 4


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("path", "value", "named"),
    [
        (["outer"], {"inner": "\ud800"}, "KIND.outer.inner "),
        ("outer", {"inner": [1, float("nan")]}, r"KIND.outer.inner\[1\] "),
        ("a.b", object(), "KIND.a.b "),
        (["list", 0, "odd key"], {1, 2}, r"KIND.list\[0\]\['odd key'\] "),
        (["a.b"], (1,), r"KIND\['a.b'\] "),
        ("a", {1: 2}, "KIND.a has a key"),
    ],
)
async def test_a_value_that_cannot_be_kept_is_named_by_its_whole_path(
    repo: SessionRepository, new_session: NewSession, kind: str, path: Any, value: Any, named: str
) -> None:
    session = await new_session(**{kind: {"list": [{}]}})

    with pytest.raises(SessionValueError, match=f"^{named.replace('KIND', kind)}"):
        await set_path(repo, kind)(session.id, path, value)

    assert session.version == 1


async def test_u0000_in_a_context_is_named_by_its_whole_path(repo: SessionRepository, new_session: NewSession) -> None:
    session = await new_session()

    with pytest.raises(SessionValueError, match=r"^context\.outer\.inner holds U\+0000"):
        await repo.set_session_context_path(session.id, ["outer"], {"inner": "\0"})
    with pytest.raises(SessionValueError, match=r"^a key of context\.outer holds U\+0000"):
        await repo.set_session_context_path(session.id, ["outer"], {"\0": 1})
    with pytest.raises(SessionValueError, match=r"^context\.outer holds U\+0000"):
        await repo.set_session_context_path(session.id, "outer", "\0")

    assert (session.context, session.version) == ({}, 1)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("given", [[], None, "text", 1])
async def test_what_is_no_document_is_refused(
    repo: SessionRepository, new_session: NewSession, kind: str, given: Any
) -> None:
    session = await new_session()

    for change in (update(repo, kind), replace(repo, kind)):
        with pytest.raises(SessionValueError, match=f"^{kind} must be a dict"):
            await change(session.id, given)


@pytest.mark.parametrize("kind", KINDS)
async def test_an_unknown_session_is_named(repo: SessionRepository, kind: str) -> None:
    unknown = uuid4()

    for change in (
        update(repo, kind)(unknown, {}),
        replace(repo, kind)(unknown, {}),
        set_path(repo, kind)(unknown, "a", 1),
    ):
        with pytest.raises(SessionNotFoundError, match=str(unknown)):
            await change


@pytest.mark.parametrize("kind", KINDS)
async def test_changes_at_the_same_time_all_stay(database: DatabaseManager, kind: str) -> None:
    async with database.session() as db:
        session = await SessionRepository(db).create(Session(user_id="ada"))

    async def change(number: int) -> None:
        async with database.session() as db:
            repo = SessionRepository(db)
            await update(repo, kind)(session.id, {f"key{number}": number})
            await set_path(repo, kind)(session.id, f"all.key{number}", number)

    await asyncio.gather(*map(change, range(20)))
    async with database.session() as db:
        found = await SessionRepository(db).get(session.id)

    assert found is not None
    expected = {f"key{number}": number for number in range(20)}
    assert document(found, kind) == expected | {"all": expected}
    assert found.version == 41
