"""What OpenAPI says about the REST API."""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from pydantic import BaseModel

from agent_service.integrations.fastapi import models
from agent_service.integrations.fastapi.openapi import Problem
from tests.integrations.fastapi.rest.conftest import application, begin

Operation = dict[str, Any]


@pytest.fixture(scope="module")
def schema() -> dict[str, Any]:
    app, _ = application("sqlite+aiosqlite:///never_opened.db")
    return app.openapi()


def operations(schema: dict[str, Any]) -> Iterator[tuple[str, str, Operation]]:
    for path, methods in schema["paths"].items():
        for method, operation in methods.items():
            yield method, path, operation


def test_each_operation_has_a_short_name_of_its_own_and_says_what_it_does(schema: dict[str, Any]) -> None:
    found = list(operations(schema))

    names = [operation["operationId"] for _, _, operation in found]
    assert len(set(names)) == len(names) == 26
    assert all(name.isidentifier() for name in names)
    for _, _, operation in found:
        assert operation["tags"] == ["sessions"]
        assert operation["description"].endswith(".")


def test_each_operation_tells_its_errors_as_problems_with_examples(schema: dict[str, Any]) -> None:
    for method, path, operation in operations(schema):
        answers = operation["responses"]
        errors = {code for code in answers if code.startswith(("4", "5"))}
        assert errors >= {"401", "403", "413", "422", "503"}, (method, path)
        assert "404" in errors or "{session_id}" not in path
        for code in errors:
            (media_type,) = answers[code]["content"]
            example = Problem.model_validate(answers[code]["content"][media_type]["example"])
            assert (media_type, example.status) == ("application/problem+json", int(code))
    assert "Problem" in schema["components"]["schemas"]


def test_conditional_operations_name_their_headers(schema: dict[str, Any]) -> None:
    told: dict[str, set[str]] = {}
    for _, _, operation in operations(schema):
        for parameter in operation.get("parameters", ()):
            if parameter["in"] == "header" and not parameter["name"].startswith("x-"):
                assert parameter["description"]
                told.setdefault(parameter["name"], set()).add(operation["operationId"])

    documents = {f"{verb}_{name}" for verb in ("set", "update") for name in ("context", "metadata")}
    assert told == {
        "If-None-Match": {"get_session", "get_context", "get_metadata"},
        "If-Match": {
            "update_session", "delete_session", "append_message", "append_messages", "pop_message", *documents,
        },
        "Idempotency-Key": {"append_message"},
        "Last-Event-ID": {"stream_session"},
    }  # fmt: skip


def test_streams_say_what_they_are(schema: dict[str, Any]) -> None:
    streams = {
        operation["operationId"]: [*operation["responses"]["200"]["content"]]
        for _, _, operation in operations(schema)
        if operation["operationId"] in {"stream_session", "export_user"}
    }

    assert streams == {"stream_session": ["text/event-stream"], "export_user": ["application/x-ndjson"]}


def test_a_message_is_described_and_not_just_any_object(schema: dict[str, Any]) -> None:
    body = schema["paths"]["/sessions/{session_id}/messages"]["post"]["requestBody"]["content"]["application/json"]

    assert set(body["schema"]["properties"]) == {"role", "content", "token_count"}
    assert set(body["examples"]) == {"text", "parts", "tool call"}


@pytest.mark.parametrize("model", [getattr(models, name) for name in models.__all__])
def test_the_examples_of_a_model_are_what_it_writes(model: type[BaseModel]) -> None:
    for example in model.model_json_schema().get("examples", ()):
        written = {**example, "session_metadata": example.get("metadata"), "data": example.get("message")}

        assert json.loads(model.model_validate(written).model_dump_json()) == example


async def test_answers_have_the_fields_that_are_described(ada: httpx.AsyncClient, schema: dict[str, Any]) -> None:
    path = await begin(ada, "hello")
    described = schema["components"]["schemas"]

    for url, name in (
        (path, "SessionOut"),
        (f"{path}/context", "ContextOut"),
        (f"{path}/metadata", "MetadataOut"),
        ("/sessions", "SessionPage"),
        ("/sessions/pages", "NumberedSessionPage"),
        ("/sessions/stats", "StatsOut"),
    ):
        assert set((await ada.get(url)).json()) == set(described[name]["properties"]), url
    (message,) = (await ada.get(f"{path}/messages")).json()
    assert set(message) == set(described["MessageOut"]["properties"])
