"""Problem documents in the OpenAPI of an application."""

from collections.abc import Iterator
from typing import Any, Final

from fastapi import FastAPI
from pydantic import BaseModel, ConfigDict, Field

from agent_service.integrations.fastapi.problem_types import MEDIA_TYPE, PROBLEM_TYPES, phrase

__all__ = ["FieldError", "Problem", "problem_responses", "show_problems"]

_REPLACED: Final = ("HTTPValidationError", "ValidationError")
_PROBLEM: Final = "#/components/schemas/Problem"


class FieldError(BaseModel):
    """One field of a request that cannot be used."""

    model_config = ConfigDict(populate_by_name=True)

    in_: str | None = Field(None, alias="in", description="body, query, path, header or cookie.", examples=["body"])
    field: str | None = Field(None, description="Its name, or its path in the body.", examples=["messages[0].role"])
    detail: str = Field(description="What is wrong with it.")


class Problem(BaseModel):
    """A problem document (RFC 9457)."""

    type: str = Field("about:blank", description="What kind of problem it is.", examples=[*PROBLEM_TYPES.values()])
    title: str = Field(description="The name of the status.", examples=["Not Found"])
    status: int = Field(description="The status of the answer.", examples=[404])
    detail: str | None = Field(None, description="What is wrong with this request, and what to do.")
    version: int | None = Field(None, description="Of a conflict: the version that stands.")
    errors: list[FieldError] | None = Field(None, description="The fields that cannot be used, at most 20.")


def problem_responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return ``responses=`` of a route that fails with these statuses."""
    return {status: _response(phrase(status)) for status in statuses}


def show_problems(app: FastAPI) -> None:
    """Let the OpenAPI of an application say that its errors are problem documents. Once is enough."""
    make = app.openapi
    if getattr(make, "shows_problems", False):
        return
    described: dict[str, Any] = {}

    def openapi() -> dict[str, Any]:
        nonlocal described
        schema = make()
        if schema is not described:  # which FastAPI makes once, unless the application discards it
            _describe(schema)
            described = schema
        return schema

    openapi.shows_problems = True  # type: ignore[attr-defined]
    app.openapi = openapi  # type: ignore[method-assign] # which is how FastAPI says to extend it


def _response(description: str) -> dict[str, Any]:
    return {"description": description, "content": {MEDIA_TYPE: {"schema": {"$ref": _PROBLEM}}}}


def _describe(schema: dict[str, Any]) -> None:
    schemas = schema.setdefault("components", {}).setdefault("schemas", {})
    model = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
    for name, each in (*model.pop("$defs").items(), ("Problem", model)):
        schemas.setdefault(name, each)
    for responses in _responses(schema):
        if "HTTPValidationError" in str(responses.get("422")):
            responses["422"] = _response(phrase(422))
        responses.setdefault("default", _response("Any other error"))
    if "HTTPValidationError" not in str(schema["paths"]):
        for name in _REPLACED:
            schemas.pop(name, None)


def _responses(schema: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for path in schema.get("paths", {}).values():
        for operation in path.values():
            if isinstance(operation, dict) and "responses" in operation:
                yield operation["responses"]
