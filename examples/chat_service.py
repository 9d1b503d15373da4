"""A chat service: ``agent-service db upgrade``, then ``uvicorn examples.chat_service:app --workers 2``."""

import asyncio
from dataclasses import asdict
from typing import Annotated, Any
from uuid import UUID

from fastapi import Body, Depends, FastAPI, Header, HTTPException, Request

from agent_service import SessionRepository, cached, get_session, get_settings
from agent_service.infrastructure.limits import RateLimiter
from agent_service.infrastructure.outbox import invalidate_in
from agent_service.integrations import fastapi as kit
from agent_service.integrations.fastapi.sessions import Caller, sessions_router
from agent_service.integrations.fleet import publish_fleet
from agent_service.integrations.otel import instrument
from agent_service.integrations.prometheus import metrics_app
from agent_service.tenants import Trigger, TriggerRunner, on_trigger

instrument()  # traces and metrics, where the process has an OpenTelemetry SDK
service = kit.AgentService(
    writer=True, append_timeout=5.0, cleanup=60.0, outbox=True, runtime=True, background=[publish_fleet],
    triggers=TriggerRunner if get_settings().redis_url else None,  # triggers live in Redis
)  # fmt: skip
app = FastAPI(title="Chat", lifespan=service.lifespan)
service.install(app)  # answers errors with problem documents
app.router.route_class = kit.CachedRoute
app.add_middleware(kit.RateLimitHeaders)
app.mount("/metrics", metrics_app(fleet=True))
app.include_router(kit.health_router(details=lambda request: "x-probe" in request.headers))


def user(request: Request) -> str:
    """Return who calls; replace it by what checks a token."""
    if name := request.headers.get("x-user"):
        return name
    raise HTTPException(401, "say who you are, in the header X-User")


Me = Annotated[str, Depends(user)]
app.include_router(sessions_router(authorize=lambda me=Depends(user): Caller(user_id=me)))
limited = Depends(kit.rate_limit(RateLimiter("questions", "50/second", "10000/hour"), key=user))


@app.get("/about", dependencies=[Depends(kit.cache_response(300, public=True))])
async def about() -> dict[str, str]:
    """Describe the service; clients and proxies may keep the answer."""
    return {"name": "Chat"}


@app.get("/summary")
@cached(ttl=60, key_prefix="users", key="{me}", stale_for=3600)
async def summary(me: Me) -> dict[str, Any]:
    """Add up a user's sessions. While the database is away, what was added up last is served for an hour."""
    async with get_session(readonly=True) as db:
        return asdict(await SessionRepository(db).get_session_stats(me))


@app.post("/sessions/{session_id}/ask", status_code=201, dependencies=[limited])
async def ask(
    *, session_id: UUID, text: Annotated[str, Body(embed=True)], idempotency_key: Annotated[str, Header()], me: Me,
    db: kit.DbSession, sessions: kit.Sessions, writer: kit.Writer, runtime: kit.Runtime,
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
