"""Stored documents cannot be changed in place, where the change would be lost; a copy of one is like any other."""

import copy
import json
import pickle
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncSession

from agent_service.core.errors import SessionValueError
from agent_service.infrastructure.database import SessionWriter
from agent_service.infrastructure.database.engine import DatabaseManager
from agent_service.infrastructure.database.models.message import SessionMessage
from agent_service.infrastructure.database.models.session import Session
from agent_service.infrastructure.database.repositories import SessionRepository

DOCUMENT: dict[str, Any] = {"a": {"b": [1, {"c": 2}]}, "n": 1}


def delete_key(document: dict[str, Any]) -> None:
    del document["n"]


def add_in_place(document: dict[str, Any]) -> None:
    document["n"] += 1


CHANGES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "set a key": lambda document: document.__setitem__("b", 2),
    "delete a key": delete_key,
    "add to a value": add_in_place,
    "update": lambda document: document.update(b=2),
    "setdefault": lambda document: document.setdefault("b", 2),
    "pop": lambda document: document.pop("n"),
    "popitem": lambda document: document.popitem(),
    "clear": lambda document: document.clear(),
    "set below": lambda document: document["a"].__setitem__("x", 1),
    "append below": lambda document: document["a"]["b"].append(1),
    "extend below": lambda document: document["a"]["b"].extend([1]),
    "insert below": lambda document: document["a"]["b"].insert(0, 1),
    "pop below": lambda document: document["a"]["b"].pop(),
    "remove below": lambda document: document["a"]["b"].remove(1),
    "sort below": lambda document: document["a"]["b"].sort(key=str),
    "reverse below": lambda document: document["a"]["b"].reverse(),
    "clear below": lambda document: document["a"]["b"].clear(),
    "replace below": lambda document: document["a"]["b"].__setitem__(0, 9),
    "cut below": lambda document: document["a"]["b"].__delitem__(slice(None)),
    "set deeply below": lambda document: document["a"]["b"][1].__setitem__("c", 3),
}


@pytest.fixture
async def stored(database: DatabaseManager) -> Session:
    async with database.session() as db:
        return await SessionRepository(db).create(Session(user_id="ada", context=DOCUMENT, metadata=DOCUMENT))


async def loaded(db: AsyncSession, session: Session) -> Session:
    found = await SessionRepository(db).get(session.id)
    assert found is not None
    return found


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("name", ["context", "session_metadata"])
async def test_a_change_in_place_is_refused_where_it_is_made(
    database: DatabaseManager, stored: Session, name: str, change: str
) -> None:
    async with database.session() as db:
        session = await loaded(db, stored)
        with pytest.raises(SessionValueError, match=r"in place.*update_session_"):
            CHANGES[change](getattr(session, name))

    assert getattr(session, name) == DOCUMENT


async def create(db: AsyncSession, session: Session) -> Session:
    return await SessionRepository(db).create(Session(user_id="ada", context=DOCUMENT, metadata=DOCUMENT))


async def after_update(db: AsyncSession, session: Session) -> Session:
    found = await loaded(db, session)
    found.context = found.session_metadata = copy.deepcopy(DOCUMENT)
    return await SessionRepository(db).update(found)


async def after_a_merge(db: AsyncSession, session: Session) -> Session:
    found = await loaded(db, session)
    await SessionRepository(db).update_session_context(session.id, {"a": DOCUMENT["a"]})
    await SessionRepository(db).update_session_metadata(session.id, {"a": DOCUMENT["a"]})
    return found


async def after_a_deep_merge(db: AsyncSession, session: Session) -> Session:
    found = await loaded(db, session)
    await SessionRepository(db).update_session_context(session.id, {"a": {}}, deep=True)
    await SessionRepository(db).update_session_metadata(session.id, {"a": {}}, deep=True)
    return found


async def from_a_list(db: AsyncSession, session: Session) -> Session:
    return (await SessionRepository(db).get_user_sessions(session.user_id))[0]


async def with_messages(db: AsyncSession, session: Session) -> Session:
    found = await SessionRepository(db).get_session_with_messages(session.id)
    assert found is not None
    return found


async def of_a_fork(db: AsyncSession, session: Session) -> Session:
    return await SessionRepository(db).fork(session.id, 0)


@pytest.mark.parametrize(
    "way", [create, after_update, after_a_merge, after_a_deep_merge, from_a_list, with_messages, of_a_fork]
)
async def test_wherever_a_session_comes_from_its_documents_are_fixed(
    database: DatabaseManager, stored: Session, way: Any
) -> None:
    async with database.session() as db:
        session = await way(db, stored)
        for document in (session.context, session.session_metadata):
            with pytest.raises(SessionValueError):
                document["new"] = 1
            with pytest.raises(SessionValueError):
                document["a"]["b"].append(1)


async def test_a_session_that_is_not_stored_yet_is_anybodys_to_change(database: DatabaseManager) -> None:
    given = {"a": [1]}
    session = Session(user_id="ada", context=given)
    session.context["a"].append(2)
    session.session_metadata["b"] = 3
    async with database.session() as db:
        await SessionRepository(db).create(session)
    given["a"].append(9)

    assert (session.context, session.session_metadata) == ({"a": [1, 2]}, {"b": 3})


async def test_what_is_assigned_is_stored_also_by_an_operator(database: DatabaseManager, stored: Session) -> None:
    async with database.session() as db:
        repo = SessionRepository(db)
        session = await loaded(db, stored)
        session.context |= {"x": 1}
        changed = copy.deepcopy(session.session_metadata)
        changed["a"]["b"].append(3)
        session.session_metadata = changed
        await repo.update(session)

    async with database.session() as db:
        found = await loaded(db, stored)

    assert found.context == DOCUMENT | {"x": 1}
    assert found.session_metadata == {"a": {"b": [1, {"c": 2}, 3]}, "n": 1}
    assert found.version == 2


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda each: pickle.loads(pickle.dumps(each))])
async def test_a_copy_is_a_plain_dict(database: DatabaseManager, stored: Session, copied: Any) -> None:
    async with database.session() as db:
        document = copied((await loaded(db, stored)).context)
    document["a"]["b"][1]["x"] = 1

    assert (type(document), type(document["a"]["b"])) == (dict, list)
    assert document["a"]["b"] == [1, {"c": 2, "x": 1}]


async def test_a_stored_document_reads_like_a_dict(database: DatabaseManager, stored: Session) -> None:
    async with database.session() as db:
        document = (await loaded(db, stored)).session_metadata

    assert isinstance(document, dict)
    assert json.loads(json.dumps(document)) == document == DOCUMENT
    assert (document | {"n": 2})["n"] == 2
    assert document["a"]["b"] + [3] == [1, {"c": 2}, 3]
    assert list(document) == ["a", "n"]
    assert repr(document) == repr(DOCUMENT)


async def test_what_a_method_returns_is_the_callers_own(database: DatabaseManager, stored: Session) -> None:
    async with database.session() as db:
        repo = SessionRepository(db)
        returned = [
            await repo.update_session_context(stored.id, {}),
            await repo.update_session_context(stored.id, {}, deep=True),
            await repo.set_session_context_path(stored.id, "n", 1),
            await repo.update_session_metadata(stored.id, {}),
            await repo.set_session_metadata_path(stored.id, "n", 1),
        ]
        session = await loaded(db, stored)
        for each in returned:
            each["a"]["b"].append("mine")
            each["mine"] = 1

    assert (session.context, session.session_metadata) == (DOCUMENT, DOCUMENT)


MESSAGE: dict[str, Any] = {"role": "user", "content": [{"type": "text", "text": "a"}], "token_count": 1}


@pytest.fixture(params=["appended", "appended by a writer", "batch", "read", "streamed", "popped"])
async def message(request: pytest.FixtureRequest, database: DatabaseManager, stored: Session) -> SessionMessage:
    given = copy.deepcopy(MESSAGE)
    if request.param == "appended by a writer":
        async with SessionWriter(database) as writer:
            return await writer.append(stored.id, given)
    async with database.session() as db:
        repo = SessionRepository(db)
        if request.param == "batch":
            return (await repo.add_messages_to_session(stored.id, [given]))[0]
        appended = await repo.add_message_to_session(stored.id, given)
        if request.param == "read":
            return (await repo.get_messages(stored.id))[0]
        if request.param == "streamed":
            return await anext(repo.iter_messages(stored.id))
        if request.param == "popped":
            popped = await repo.pop_message(stored.id)
            assert popped is not None
            return popped
        return appended


async def test_a_message_cannot_be_changed(message: SessionMessage) -> None:
    with pytest.raises(SessionValueError, match="in place"):
        message.data["content"] = "other"
    with pytest.raises(SessionValueError, match="in place"):
        message.content.append("other")
    with pytest.raises(SessionValueError, match="in place"):
        message["content"][0]["text"] = "other"
    with pytest.raises(SessionValueError, match="never changed"):
        message.data = {"role": "user"}
    with pytest.raises(SessionValueError, match="never changed"):
        message.role = "assistant"

    own = message.to_dict()
    own["content"][0]["text"] = "mine"

    assert message.to_dict() == MESSAGE
