"""A chat service in one file: ``agent-service db upgrade``, then ``uvicorn examples.chat_service:app --workers 2``.

Without settings it uses memory and SQLite; with REDIS_URL and DATABASE_URL it uses Redis and PostgreSQL.
"""

import asyncio
from dataclasses import asdict
from typing import Annotated, Any
from uuid import UUID

from fastapi import Body, Depends, FastAPI, Header, HTTPException

from agent_service import SessionRepository, cached, get_session, get_settings
from agent_service.infrastructure.outbox import invalidate_in
from agent_service.integrations.fastapi import AgentService, DbSession, Runtime, Sessions, Writer, health_router
from agent_service.integrations.fastapi.sessions import Caller, sessions_router
from agent_service.tenants import Trigger, TriggerRunner, on_trigger

service = AgentService(
    writer=True, append_timeout=5.0, cleanup=60.0, outbox=True, runtime=True,
    triggers=TriggerRunner if get_settings().redis_url else None,  # triggers live in Redis
)  # fmt: skip
app = FastAPI(title="Chat", lifespan=service.lifespan)
service.install(app)


async def user(x_user: Annotated[str | None, Header()] = None) -> str:
    """Return who calls; replace it by what checks a token."""
    if x_user is None:
        raise HTTPException(401, "say who you are, in the header X-User")
    return x_user


Me = Annotated[str, Depends(user)]


async def authorize(me: Me) -> Caller:
    """Let callers do everything with their own sessions."""
    return Caller(user_id=me)


app.include_router(sessions_router(authorize=authorize))
app.include_router(health_router(details=lambda request: "x-probe" in request.headers))


@cached(ttl=60, key_prefix="users", key="{user_id}", stale_for=3600)
async def summary(user_id: str) -> dict[str, Any]:
    """Add up a user's sessions. While the database is away, what was added up last is served for an hour."""
    async with get_session(readonly=True) as db:
        return asdict(await SessionRepository(db).get_session_stats(user_id))


@app.get("/summary")
async def read_summary(me: Me) -> dict[str, Any]:
    """Return the caller's totals, from the cache."""
    return await summary(me)


@app.post("/sessions/{session_id}/ask", status_code=201)
async def ask(
    *, session_id: UUID, text: Annotated[str, Body(embed=True)], idempotency_key: Annotated[str, Header()],
    me: Me, db: DbSession, sessions: Sessions, writer: Writer, runtime: Runtime,
) -> int:  # fmt: skip
    """Store a question and the answer that a tool gives in a thread; return the number of the answer."""
    session = await sessions.get(session_id)
    if session is None or session.user_id != me:
        raise HTTPException(404)
    await db.commit()  # gives the connection back before this waits for other work
    await writer.append(session_id, {"role": "user", "content": text}, client_id=f"{idempotency_key}:question")
    answer = await asyncio.get_running_loop().run_in_executor(runtime.pool_tool, str.upper, text)
    said = {"role": "agent", "content": answer}
    stored = await writer.append(session_id, said, client_id=f"{idempotency_key}:answer")
    invalidate_in(db, keys=[f"users:summary:{me}"])
    return stored.seq


@on_trigger("remind")
async def remind(trigger: Trigger) -> None:
    """Remind a user, in whichever process is free; ``RedisTrigger(tenant).set("remind", user)`` orders it."""
    print(f"{trigger.identifier} wanted to be reminded")
