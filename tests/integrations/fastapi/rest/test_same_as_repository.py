"""Any sequence of requests leaves what the same sequence of calls to the repository leaves, and answers the same."""

import json
from typing import Any
from uuid import UUID, uuid4

import httpx
from fastapi import FastAPI
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent_service.core.errors import AgentServiceError, SessionConflictError, SessionNotFoundError, SessionValueError
from agent_service.infrastructure.database.engine import DatabaseManager
from agent_service.infrastructure.database.models.session import Session
from agent_service.infrastructure.database.repositories import SessionRepository
from agent_service.integrations.fastapi.models import MessageOut, NumberedSessionPage, SessionOut, StatsOut
from tests.integrations.fastapi.rest.conftest import headers_of
from tests.support.depth import examples

Step = tuple[str, dict[str, Any]]

IDS = [UUID(int=number) for number in range(1, 3)]
"""Of the sessions that steps are about; forks get ids of their own."""
MOMENTS = {"created_at", "updated_at", "last_activity_at", "expires_at", "completed_at"}
BEGINNING: list[Step] = [
    *(("create", {"id": each, "title": "t", "context": {"x": {"x": 1}}, "metadata": {}}) for each in IDS),
    *(("append", {"id": each, "message": {"role": "user", "content": "a"}, "key": "k1"}) for each in IDS),
    *(("batch", {"id": each, "messages": [{"role": "tool", "content": text} for text in "bcd"]}) for each in IDS),
]
STATUSES = {SessionNotFoundError: 404, SessionConflictError: 409, SessionValueError: 422}

ids = st.sampled_from(IDS)
seqs = st.integers(0, 6)
texts = st.sampled_from(["a", "b", "ż\n", "", "a\0"])
values = (
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False) | texts
)
inner = st.dictionaries(st.sampled_from("xy"), values, max_size=2)
documents = st.dictionaries(st.sampled_from("xy"), inner | values, max_size=2)
nested = st.fixed_dictionaries({"x": inner})
messages = st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "assistant", ""])},
    optional={"content": texts | st.none() | st.lists(documents, max_size=2), "token_count": st.integers(-1, 9)},
)
keys = st.none() | st.sampled_from(["k1", "k2"])


def step(name: str, **arguments: st.SearchStrategy[Any]) -> st.SearchStrategy[Step]:
    return st.tuples(st.just(name), st.fixed_dictionaries(arguments))


steps = st.lists(
    st.one_of(
        step("create", id=ids, title=texts | st.none(), context=documents, metadata=documents),
        step("append", id=ids, message=messages, key=keys),
        step("append", id=ids, message=messages, key=keys),
        step("batch", id=ids, messages=st.lists(messages, min_size=1, max_size=3)),
        step("pop", id=ids),
        step("history", id=ids, after_seq=st.none() | seqs, limit=st.integers(1, 3)),
        step("patch", id=ids, title=texts | st.none(), status=st.sampled_from(["active", "failed", "completed"])),
        step("merge", id=ids, values=documents | nested, deep=st.booleans(), version=st.none() | st.integers(1, 3)),
        step("replace", id=ids, metadata=documents),
        step("fork", id=ids, seq=seqs),
        step("delete", id=ids, hard=st.booleans()),
        step("restore", id=ids),
        step("list"),
        step("stats"),
    ),
    min_size=10,
    max_size=20,
)


class Rest:
    """Sends steps as requests; returns the status and what was shown."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client

    async def play(self, name: str, given: dict[str, Any]) -> tuple[int, Any]:
        url = f"/sessions/{given.get('id')}"
        method, url, options = {
            "create": lambda: ("POST", "/sessions", {"json": {**given, "id": str(given["id"])}}),
            "append": lambda: ("POST", f"{url}/messages", {"json": given["message"], "headers": key_of(given)}),
            "batch": lambda: (
                "POST", f"{url}/messages/batch",
                {"json": {"messages": [{"message": each} for each in given["messages"]]}},
            ),
            "pop": lambda: ("DELETE", f"{url}/messages/last", {}),
            "history": lambda: ("GET", f"{url}/messages", {"params": without_none(given)}),
            "patch": lambda: ("PATCH", url, {"json": {"title": given["title"], "status": given["status"]}}),
            "merge": lambda: (
                "PATCH", f"{url}/context",
                {"json": {"values": given["values"], "deep": given["deep"]}, "headers": version_of(given)},
            ),
            "replace": lambda: ("PUT", f"{url}/metadata", {"json": given["metadata"]}),
            "fork": lambda: ("POST", f"{url}/fork", {"json": {"seq": given["seq"]}}),
            "delete": lambda: ("DELETE", url, {"params": {"hard": given["hard"]}}),
            "restore": lambda: ("POST", f"{url}/restore", {}),
            "list": lambda: ("GET", "/sessions/pages", {}),
            "stats": lambda: ("GET", "/sessions/stats", {}),
        }[name]()  # fmt: skip
        answer = await self._client.request(method, url, **options)
        if not answer.is_success:
            # A version that does not hold is 412, other conflicts are 409; to the repository both are one error.
            return (409 if answer.status_code == 412 else answer.status_code), None
        return 200, answer.json() if answer.content else None


def key_of(given: dict[str, Any]) -> dict[str, str]:
    return {} if given["key"] is None else {"idempotency-key": given["key"]}


def version_of(given: dict[str, Any]) -> dict[str, str]:
    return {} if given["version"] is None else {"if-match": f'"{given["version"]}"'}


def without_none(given: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in given.items() if name != "id" and value is not None}


class Direct:
    """Makes the same steps with the repository, each in a transaction of its own."""

    def __init__(self, database: DatabaseManager, tenant: str) -> None:
        self._database = database
        self._tenant = tenant

    async def play(self, name: str, given: dict[str, Any]) -> tuple[int, Any]:
        try:
            async with self._database.session() as db:
                return 200, await getattr(self, f"_{name}")(SessionRepository(db, self._tenant), **given)
        except AgentServiceError as exc:
            return next(status for kind, status in STATUSES.items() if isinstance(exc, kind)), None

    async def _create(self, repo: SessionRepository, **fields: Any) -> Any:
        return shown(await repo.create(Session(user_id="ada", **fields)))

    async def _append(self, repo: SessionRepository, id: UUID, message: Any, key: str | None) -> Any:
        await found(repo, id)
        stored = await repo.add_message_to_session(id, message, client_id=key)
        if json_of(stored.to_dict()) != json_of(message):
            raise SessionValueError("key reused")
        return said(stored)

    async def _batch(self, repo: SessionRepository, id: UUID, messages: Any) -> Any:
        await found(repo, id)
        return [said(each) for each in await repo.add_messages_to_session(id, messages)]

    async def _pop(self, repo: SessionRepository, id: UUID) -> Any:
        popped = await repo.pop_message(id)
        return None if popped is None else said(popped)

    async def _history(self, repo: SessionRepository, id: UUID, **bounds: Any) -> Any:
        return [said(each) for each in await repo.get_messages(id, **bounds)]

    async def _patch(self, repo: SessionRepository, id: UUID, **changes: Any) -> Any:
        session = await found(repo, id)
        for name, value in changes.items():
            setattr(session, name, value)
        return shown(await repo.update(session))

    async def _merge(self, repo: SessionRepository, id: UUID, values: Any, deep: bool, version: int | None) -> Any:
        session = await found(repo, id)
        if version not in {None, session.version}:
            raise SessionConflictError("another version")
        context = await repo.update_session_context(id, values, deep=deep, expected_version=version)
        return {"version": session.version, "context": context}

    async def _replace(self, repo: SessionRepository, id: UUID, metadata: Any) -> Any:
        session = await found(repo, id)
        whole = await repo.set_session_metadata(id, metadata)
        return {"version": session.version, "metadata": whole}

    async def _fork(self, repo: SessionRepository, id: UUID, seq: int) -> Any:
        return shown(await repo.fork(id, seq))

    async def _delete(self, repo: SessionRepository, id: UUID, hard: bool) -> Any:
        if not await repo.delete(id, hard=hard):
            raise SessionNotFoundError(str(id))

    async def _restore(self, repo: SessionRepository, id: UUID) -> Any:
        await repo.restore(id)
        return shown(await found(repo, id))

    async def _list(self, repo: SessionRepository) -> Any:
        return plain(NumberedSessionPage.of(await repo.get_paginated_user_sessions("ada")))

    async def _stats(self, repo: SessionRepository) -> Any:
        return plain(StatsOut.of(await repo.get_session_stats("ada")))


async def found(repo: SessionRepository, id: UUID) -> Session:
    session = await repo.get(id)
    if session is None:
        raise SessionNotFoundError(str(id))
    return session


def shown(session: Session) -> Any:
    return plain(SessionOut.of(session))


def said(message: Any) -> Any:
    return plain(MessageOut.of(message))


def plain(model: Any) -> Any:
    return model.model_dump(mode="json")


def json_of(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


def comparable(value: Any, known: dict[str, str]) -> Any:
    """Return what was shown without moments, and with the ids of forks in the order in which they were made."""
    if isinstance(value, dict):
        return {name: (each is None) if name in MOMENTS else comparable(each, known) for name, each in value.items()}
    if isinstance(value, list):
        return [comparable(each, known) for each in value]
    if isinstance(value, str) and len(value) == 36 and value not in map(str, IDS):
        return known.setdefault(value, f"fork {len(known) + 1}")
    return repr(value) if isinstance(value, float) else value


@settings(max_examples=examples(20, 1_000), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(played=steps)
async def test_any_requests_do_what_the_same_calls_do(app: FastAPI, played: list[Step]) -> None:
    """Each way plays the steps in a tenant of its own, and every step shows the same."""
    tenant = uuid4().hex
    known: list[dict[str, str]] = [{}, {}]
    headers = headers_of("ada", tenant=tenant)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://s", headers=headers) as client:
        ways = Rest(client), Direct(app.state.agent_service.database, f"{tenant}-direct")
        for name, arguments in (*BEGINNING, *played, ("list", {}), ("stats", {})):
            told = [await each.play(name, arguments) for each in ways]
            assert comparable([*told[0]], known[0]) == comparable([*told[1]], known[1]), (name, arguments)
