"""One session for an external id, however many ask for it at once. On both engines."""

import asyncio
from typing import Any
from urllib.parse import unquote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from sqlalchemy import func, select

from agent_service.core.errors import SessionConflictError, SessionValueError
from agent_service.infrastructure.database.engine import DatabaseManager
from agent_service.infrastructure.database.models.session import Session
from agent_service.infrastructure.database.repositories import SessionRepository, external_id_of
from tests.support.forked import Forked


async def test_it_creates_once_and_returns_that_session_later(repo: SessionRepository) -> None:
    values: dict[str, Any] = {"agent_id": "a", "title": "T", "context": {"k": 1}, "metadata": {"m": 2}}

    created = await repo.get_or_create("chat", user_id="ada", **values)
    again = await repo.get_or_create("chat", user_id="ada", title="Other")

    assert (created.external_id, created.user_id, created.agent_id, created.title) == ("chat", "ada", "a", "T")
    assert (created.context, created.session_metadata, created.version) == ({"k": 1}, {"m": 2}, 1)
    assert (again.id, again.title) == (created.id, "T")


async def test_a_hundred_tasks_and_two_processes_get_one_session(database: DatabaseManager, database_url: str) -> None:
    async def elsewhere() -> list[str]:
        with await Forked.start("tests.database.getter", database_url) as process:
            found = []
            while line := await process.line():
                found.append(line)
            assert await process.wait() == 0
            return found

    async def here() -> list[str]:
        async with database.session() as db:
            return [str((await SessionRepository(db, "acme").get_or_create("chat", user_id="ada")).id)]

    done = await asyncio.gather(elsewhere(), elsewhere(), *(here() for _ in range(100)))

    found = [each for part in done for each in part]
    async with database.session() as db:
        stored = await db.scalar(select(func.count()).select_from(Session))
    assert len(found) == 200
    assert len(set(found)) == 1
    assert stored == 1


async def test_each_tenant_has_a_session_of_its_own(database: DatabaseManager) -> None:
    async with database.session() as db:
        ids = {(await SessionRepository(db, each).get_or_create("chat", user_id="ada")).id for each in ("", "a", "b")}

    assert len(ids) == 3


async def test_a_session_of_another_user_is_not_handed_out(repo: SessionRepository) -> None:
    session = await repo.get_or_create("chat", user_id="ada")

    with pytest.raises(SessionConflictError, match="is another user's") as raised:
        await repo.get_or_create("chat", user_id="eve")

    assert "ada" not in str(raised.value)
    assert str(session.id) not in str(raised.value)


async def test_a_deleted_session_keeps_its_external_id_until_it_is_restored_or_removed(repo: SessionRepository) -> None:
    session = await repo.get_or_create("chat", user_id="ada")
    await repo.delete(session.id)

    with pytest.raises(SessionConflictError, match=rf"{session.id}.*was deleted; restore\(\).*hard=True"):
        await repo.get_or_create("chat", user_id="ada")
    await repo.restore(session.id)
    restored = await repo.get_or_create("chat", user_id="ada")
    await repo.delete(session.id, hard=True)
    new = await repo.get_or_create("chat", user_id="ada")

    assert restored.id == session.id != new.id


async def test_bad_arguments_are_refused_before_anything_is_stored(repo: SessionRepository) -> None:
    for external_id, values in (("", {}), ("x" * 256, {}), (7, {}), ("x", {"title": 7}), ("x", {"context": {1}})):
        with pytest.raises(SessionValueError):
            await repo.get_or_create(external_id, user_id="ada", **values)  # type: ignore[arg-type]

    assert await repo.get_by_external_id("x") is None


PARTS = st.lists(st.text(st.characters(codec="utf-8"), max_size=90), min_size=1, max_size=4)


@given(first=PARTS, second=PARTS)
@example(first=["a", "b"], second=["a/b"])
@example(first=["a", ""], second=["a"])
@example(first=[""], second=["", ""])
@example(first=["x" * 300], second=["x" * 301])
@example(first=["%2F"], second=["/"])
def test_parts_have_one_id_each_and_no_two_the_same(first: list[str], second: list[str]) -> None:
    ids = [external_id_of(*parts) for parts in (first, second)]

    assert (ids[0] == ids[1]) == (first == second)
    for found, parts in zip(ids, (first, second), strict=True):
        assert 1 <= len(found) <= 255
        assert found.startswith("#") or [unquote(each) for each in found.split("/")] == parts


def test_an_id_of_parts_is_readable_and_stays_what_it_is() -> None:
    assert external_id_of("support", "ada", "chat 1") == "support/ada/chat%201"
    assert external_id_of("a\x00b", "ø") == "a%00b/%C3%B8"
    assert external_id_of("x" * 256) == "#cb9d468022b930d52da4d9b0226ef9c997e0acc119eeb08afefb8219bc53972b"


@pytest.mark.parametrize(
    ("parts", "complaint"), [((), "at least one part"), (("a", 7), r"parts\[1\]"), (("\ud800",), "lone")]
)
def test_parts_that_are_no_texts_are_refused(parts: tuple[Any, ...], complaint: str) -> None:
    with pytest.raises(SessionValueError, match=complaint):
        external_id_of(*parts)
