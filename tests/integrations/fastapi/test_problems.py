"""Errors as problem documents: what clients are told, and what they are not."""

from collections.abc import AsyncIterator
from http import HTTPStatus
from typing import Annotated, Any

import httpx
import pytest
from fastapi import FastAPI, HTTPException, Query, WebSocket
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field, ValidationError, model_validator

from agent_service.core import errors
from agent_service.core.errors import (
    ContextStoreError,
    DatabaseUnavailableError,
    RedisUnavailableError,
    SessionConflictError,
    SessionValueError,
    StateStoreError,
)
from agent_service.infrastructure.database import DatabaseManager
from agent_service.infrastructure.database.models.session import Session
from agent_service.infrastructure.database.repositories import SessionRepository
from agent_service.integrations.fastapi import add_problem_handlers, problem_responses
from agent_service.integrations.fastapi.problems import problem_of

SECRET = "postgresql://ada:hunter2@db.internal/app is away"

STATUSES = {
    "AgentServiceError": 500,
    "BridgeError": 500,
    "BridgeTimeoutError": 504,
    "CacheError": 500,
    "CacheKeyError": 422,
    "CacheSerializationError": 500,
    "CacheValueError": 422,
    "ConfigurationError": 500,
    "ContextConfigError": 500,
    "ContextError": 500,
    "ContextKeyError": 404,
    "ContextStoreError": 500,
    "DatabaseError": 500,
    "DatabaseUnavailableError": 503,
    "LoadTimeoutError": 504,
    "RateLimitError": 500,
    "RateLimitExceededError": 429,
    "RateLimitValueError": 422,
    "RecordValueError": 422,
    "RedisBusyError": 503,
    "RedisCommandError": 500,
    "RedisDeniedError": 500,
    "RedisOperationError": 500,
    "RedisRefusedError": 503,
    "RedisUnavailableError": 503,
    "RedisUnreplicatedError": 503,
    "ReentrantLoadError": 500,
    "RuntimeStateError": 500,
    "SessionConflictError": 409,
    "SessionError": 500,
    "SessionNotFoundError": 404,
    "SessionValueError": 422,
    "StateConflictError": 409,
    "StateStoreError": 500,
    "TransactionConflictError": 409,
    "UndecodableError": 500,
}


@pytest.fixture
def app() -> FastAPI:
    made = FastAPI()
    add_problem_handlers(made)
    return made


@pytest.fixture
async def client(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as opened:
        yield opened


def fail_with(app: FastAPI, exc: Exception) -> None:
    @app.get("/")
    async def fail() -> None:
        raise exc


def test_every_error_of_the_package_has_its_status() -> None:
    assert set(STATUSES) == set(errors.__all__)


@pytest.mark.parametrize(("name", "status"), STATUSES.items(), ids=STATUSES)
async def test_an_error_of_the_package_is_a_problem_document(
    app: FastAPI, client: httpx.AsyncClient, name: str, status: int
) -> None:
    fail_with(app, getattr(errors, name)(SECRET))

    response = await client.get("/")
    problem = response.json()

    assert (response.status_code, response.headers["content-type"]) == (status, "application/problem+json")
    assert (problem["status"], problem["title"]) == (status, HTTPStatus(status).phrase)
    assert (status < 500) == (SECRET in response.text)
    assert response.headers.get("retry-after") == ("1" if status in {429, 503} else None)
    assert (problem["type"] == "about:blank") == (status == 500)


async def test_a_fault_of_the_service_reaches_the_server_with_its_traceback(app: FastAPI) -> None:
    fail_with(app, errors.ConfigurationError(SECRET))

    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        with pytest.raises(errors.ConfigurationError):
            await client.get("/")


async def test_any_other_exception_is_a_problem_without_details(app: FastAPI, client: httpx.AsyncClient) -> None:
    fail_with(app, RuntimeError(SECRET))

    response = await client.get("/")

    assert response.status_code == 500
    assert response.json() == {
        "type": "about:blank",
        "title": "Internal Server Error",
        "status": 500,
        "detail": "The service failed; its log says more.",
    }


@pytest.mark.parametrize("kind", [ContextStoreError, StateStoreError])
@pytest.mark.parametrize("cause", [RedisUnavailableError, DatabaseUnavailableError])
def test_a_store_whose_server_is_away_is_unavailable(kind: type[Exception], cause: type[Exception]) -> None:
    error = kind("could not read")
    error.__cause__ = cause(SECRET)

    assert (problem_of(error)["status"], SECRET in str(problem_of(error))) == (503, False)


async def test_a_conflict_tells_the_version_that_stands() -> None:
    database = DatabaseManager("sqlite+aiosqlite:///./agent_service.db")
    async with database.session() as db:
        repo = SessionRepository(db)
        session = await repo.create(Session(user_id="ada"))
        with pytest.raises(SessionConflictError) as merging:
            await repo.update_session_context(session.id, {"a": 1}, expected_version=41)
        with pytest.raises(SessionConflictError) as appending:
            await repo.add_message_to_session(session.id, {"role": "user", "content": "a"}, expected_version=41)
    await database.close()

    assert [problem_of(each.value)["version"] for each in (merging, appending)] == [session.version] * 2


async def test_a_value_that_cannot_be_used_names_its_field() -> None:
    database = DatabaseManager("sqlite+aiosqlite:///./agent_service.db")
    fields = []
    async with database.session() as db:
        repo: Any = SessionRepository(db)
        session = await repo.create(Session(user_id="ada"))
        for call in (
            lambda: repo.get_messages(session.id, limit=0),
            lambda: repo.get("7"),
            lambda: repo.update_session_context(session.id, [1]),
            lambda: repo.add_message_to_session(session.id, {"role": 1, "content": "a"}),
            lambda: repo.search_messages("ada", 7),
            lambda: repo.create(Session()),
        ):
            with pytest.raises(SessionValueError) as caught:
                await call()
            fields.append(problem_of(caught.value)["errors"][0]["field"])
    await database.close()

    assert fields == ["limit", "session_id", "context", "message.role", "term", "user_id"]


class Named(BaseModel, extra="forbid"):
    names: list[str]


async def test_an_invalid_request_names_the_place_and_the_field_and_repeats_no_value(
    app: FastAPI, client: httpx.AsyncClient
) -> None:
    @app.post("/items/{number}")
    async def post(number: int, named: Named, limit: Annotated[int, Query(le=10)] = 1) -> None: ...

    response = await client.post("/items/hunter2?limit=11", json={"names": ["a", 2], "name": "hunter2"})

    assert (response.status_code, response.headers["content-type"]) == (422, "application/problem+json")
    assert "hunter2" not in response.text
    assert [(each["in"], each["field"]) for each in response.json()["errors"]] == [
        ("path", "number"),
        ("query", "limit"),
        ("body", "names[1]"),
        ("body", "name"),
    ]


class Range(BaseModel):
    least: int = Field(0, ge=0)
    most: int = 10

    @model_validator(mode="after")
    def ordered(self) -> "Range":
        if self.least > self.most:
            raise ValueError("least must not be above most")
        return self


@pytest.mark.parametrize(
    ("values", "field"), [({"least": 11}, {}), ({"least": -1}, {"field": "least"}), (7, {})], ids=["both", "one", "all"]
)
async def test_what_a_handler_validates_itself_is_refused_without_a_place(
    app: FastAPI, client: httpx.AsyncClient, values: object, field: dict[str, str]
) -> None:
    @app.get("/")
    async def get() -> None:
        try:
            Range.model_validate(values)
        except ValidationError as exc:
            raise RequestValidationError(exc.errors()) from exc

    response = await client.get("/")

    (error,) = response.json()["errors"]
    assert (response.status_code, {name: error[name] for name in error if name != "detail"}) == (422, field)


async def test_a_body_that_is_no_json_is_a_problem(app: FastAPI, client: httpx.AsyncClient) -> None:
    @app.post("/")
    async def post(named: Named) -> None: ...

    response = await client.post("/", content=b"{", headers={"content-type": "application/json"})

    assert (response.status_code, response.json()["errors"][0]["in"]) == (422, "body")


async def test_an_answer_names_twenty_invalid_fields_at_most(app: FastAPI, client: httpx.AsyncClient) -> None:
    @app.post("/")
    async def post(named: Named) -> None: ...

    response = await client.post("/", json={"names": [0] * 5000})

    assert (response.status_code, len(response.json()["errors"])) == (422, 20)


@pytest.mark.parametrize(
    ("exc", "expected"),
    [
        (HTTPException(401, headers={"WWW-Authenticate": "Bearer"}), {"title": "Unauthorized"}),
        (HTTPException(403, "not yours"), {"title": "Forbidden", "detail": "not yours"}),
        (
            HTTPException(429, {"type": "urn:x:limit", "detail": "slow down", "status": 200}, {"Retry-After": "7"}),
            {"title": "Too Many Requests", "type": "urn:x:limit", "detail": "slow down"},
        ),
        (HTTPException(400, ["a", "b"]), {"title": "Bad Request", "errors": ["a", "b"]}),
        (HTTPException(599, "odd"), {"title": "Internal Server Error", "detail": "odd"}),
        (HTTPException(503, "closed", {"retry-after": "30"}), {"title": "Service Unavailable", "detail": "closed"}),
    ],
    ids=lambda each: str(each.status_code) if isinstance(each, HTTPException) else "",
)
async def test_an_http_exception_keeps_its_status_and_headers(
    app: FastAPI, client: httpx.AsyncClient, exc: HTTPException, expected: dict[str, Any]
) -> None:
    fail_with(app, exc)

    response = await client.get("/")

    assert response.status_code == exc.status_code
    assert response.json() == {"type": "about:blank", "status": exc.status_code, **expected}
    assert response.headers.items() >= {name.lower(): value for name, value in (exc.headers or {}).items()}.items()


async def test_a_path_or_method_that_is_not_served_is_a_problem(app: FastAPI, client: httpx.AsyncClient) -> None:
    @app.get("/here")
    async def here() -> None: ...

    assert [(await client.get("/there")).json(), (await client.post("/here")).json()] == [
        {"type": "about:blank", "title": "Not Found", "status": 404},
        {"type": "about:blank", "title": "Method Not Allowed", "status": 405},
    ]


async def test_a_status_without_a_body_has_none(app: FastAPI, client: httpx.AsyncClient) -> None:
    fail_with(app, HTTPException(304, headers={"ETag": '"a"'}))

    response = await client.get("/")

    assert (response.status_code, response.content, response.headers["etag"]) == (304, b"", '"a"')


async def test_an_error_on_an_open_web_socket_goes_to_the_server(app: FastAPI) -> None:
    @app.websocket("/")
    async def talk(socket: WebSocket) -> None:
        await socket.accept()
        raise SessionValueError("text must be shorter")

    sent: list[Any] = []

    async def receive() -> dict[str, str]:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        sent.append(message["type"])

    scope = {"type": "websocket", "path": "/", "headers": [], "query_string": b"", "subprotocols": []}
    with pytest.raises(SessionValueError):
        await app(scope, receive, send)

    assert sent == ["websocket.accept"]


async def test_the_openapi_shows_the_problem_in_place_of_fastapis_errors(
    app: FastAPI, client: httpx.AsyncClient
) -> None:
    @app.get("/items/{number}", responses=problem_responses(404))
    async def read(number: int) -> None: ...

    add_problem_handlers(app)
    schema = (await client.get("/openapi.json")).json()
    responses = schema["paths"]["/items/{number}"]["get"]["responses"]

    assert {status: list(each["content"]) for status, each in responses.items() if status != "200"} == {
        "404": ["application/problem+json"],
        "422": ["application/problem+json"],
        "default": ["application/problem+json"],
    }
    assert {"Problem", "FieldError"} == schema["components"]["schemas"].keys()
    assert _references(schema) <= {f"#/components/schemas/{name}" for name in schema["components"]["schemas"]}


def _references(document: Any) -> set[str]:
    if isinstance(document, dict):
        own = {document["$ref"]} if "$ref" in document else set()
        return own.union(*map(_references, document.values()))
    return set().union(*map(_references, document)) if isinstance(document, list) else set()


async def test_an_application_that_has_started_takes_no_handlers_and_says_so() -> None:
    installed, late = FastAPI(), FastAPI()
    add_problem_handlers(installed)
    for app in (installed, late):
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
            await client.get("/")

    add_problem_handlers(installed)
    with pytest.raises(errors.RuntimeStateError, match="has started"):
        add_problem_handlers(late)
