"""An application that streams a session's messages, for servers of tests to run."""

import json
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

from fastapi import FastAPI
from starlette.responses import StreamingResponse

from agent_service.infrastructure.database.models.session import Session
from agent_service.integrations.fastapi import AgentService, Service, Sessions, health_router

service = AgentService(writer=True, cleanup=True, outbox=True)
app = FastAPI(lifespan=service.lifespan)
service.install(app)
app.include_router(health_router(details=lambda _: True))


@app.post("/sessions")
async def create(sessions: Sessions) -> str:
    return str((await sessions.create(Session(user_id="ada"))).id)


@app.post("/sessions/{session_id}/messages")
async def append(session_id: str, message: dict[str, Any], served: Service) -> int:
    return (await served.writer.append(session_id, message)).seq


@app.get("/sessions/{session_id}/events")
async def follow(session_id: str, sessions: Sessions, served: Service) -> StreamingResponse:
    messages = sessions.subscribe(session_id, until=served.stopping)

    async def events() -> AsyncIterator[str]:
        yield ": hello\n\n"
        async with aclosing(messages):
            async for message in messages:
                yield f"id: {message.seq}\ndata: {json.dumps(message.to_dict(), default=str)}\n\n"

    return StreamingResponse(events(), media_type="text/event-stream")
