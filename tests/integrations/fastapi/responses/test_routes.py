"""A cached route: what runs on a hit, on a miss, and for whom."""

import asyncio
from typing import Annotated

import httpx
import pytest
from fastapi import BackgroundTasks, Cookie, Depends, FastAPI, Header, HTTPException, Request, Response, Security
from fastapi.responses import FileResponse, StreamingResponse
from fastapi.security import APIKeyHeader, APIKeyQuery, HTTPBearer
from pydantic import BaseModel

from agent_service.core.errors import CacheKeyError, CacheValueError, ConfigurationError
from agent_service.integrations.fastapi.responses import cache_response
from tests.integrations.fastapi.responses.conftest import Counted, client_of

pytestmark = pytest.mark.usefixtures("anywhere")


class Item(BaseModel):
    number: int
    call: int


async def test_the_second_request_is_answered_by_the_cache(app: FastAPI, client: httpx.AsyncClient, counted: Counted):
    @app.get("/items/{number}", dependencies=[Depends(cache_response(60))])
    async def item(number: int) -> Item:
        return Item(number=number, call=counted())

    first = await client.get("/items/1")
    second = await client.get("/items/1")
    other = await client.get("/items/2")

    assert first.json() == second.json() == {"number": 1, "call": 1}
    assert other.json() == {"number": 2, "call": 2}
    assert first.headers["cache-control"] == second.headers["cache-control"] == "max-age=60"
    assert first.headers["etag"] == second.headers["etag"] != other.headers["etag"]
    assert (first.headers["cache-status"], "age" in first.headers) == ("agent-service; fwd=uri-miss", False)
    assert second.headers["cache-status"].startswith("agent-service; hit; ttl=")
    assert second.headers["age"] == "0"
    assert second.headers["content-type"] == "application/json"
    assert second.headers["content-length"] == str(len(second.content))
