"""Health for whoever starts, watches and replaces processes: three questions with different answers."""

import inspect
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import Any, TypeAlias

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import JSONResponse

from agent_service.integrations.fastapi.dependencies.tenancy import Service
from agent_service.integrations.fastapi.readiness import worst

__all__ = ["Trust", "health_router"]

Trust: TypeAlias = Callable[[Request], bool | Awaitable[bool]]


def health_router(*, details: Trust | None = None) -> APIRouter:
    """Return a router with ``/health/live``, ``/health/ready`` and ``/health/startup``, which no OpenAPI shows.

    ``app.include_router(health_router())``

    - ``live``: 200 as long as the process answers. It asks nothing, so an outage elsewhere restarts no process.
    - ``ready``: 200 while the service is up or degraded, 503 while it is down or ends. All parts are asked at once,
      within 2 seconds; probes at the same time share one answer.
    - ``startup``: 200 once the service has started.

    :param details: tells, plain or async, whether a caller may see the state, latency and reason of each part; None:
        nobody may, and every caller sees the status alone. Reasons name hosts, and never a password.
    """
    router = APIRouter(prefix="/health", include_in_schema=False)

    async def trusted(request: Request) -> bool:
        if details is None:
            return False
        answer = details(request)
        return bool(await answer if inspect.isawaitable(answer) else answer)

    @router.api_route("/live", methods=["GET", "HEAD"])
    async def live() -> JSONResponse:
        return _answer(200, status="up")

    @router.api_route("/startup", methods=["GET", "HEAD"])
    async def startup(service: Service) -> JSONResponse:
        return _answer(200, status="up") if service.started else _answer(503, status="down")

    @router.api_route("/ready", methods=["GET", "HEAD"])
    async def ready(request: Request, service: Service) -> JSONResponse:
        if not service.started or service.stopping.is_set():
            return _answer(503, status="down")
        states = await service.readiness.ask()
        status = worst(states)
        shown: dict[str, Any] = {"status": status}
        if await trusted(request):
            shown["parts"] = {name: asdict(state) for name, state in states.items()}
        return _answer(503 if status == "down" else 200, **shown)

    return router


def _answer(status_code: int, **content: Any) -> JSONResponse:
    return JSONResponse(content, status_code, {"Cache-Control": "no-store"})
