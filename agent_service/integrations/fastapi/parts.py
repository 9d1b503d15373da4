"""What one service runs."""

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from agent_service.core.supervision import Supervised

if TYPE_CHECKING:
    from agent_service.infrastructure.database.append.writer import SessionWriter
    from agent_service.infrastructure.database.engine.manager import DatabaseManager
    from agent_service.infrastructure.redis.manager import RedisManager
    from agent_service.runtime.runtime import AgentRuntime
    from agent_service.tenants.runner import TriggerRunner

__all__ = ["Parts"]

_MOST_EXPORTS: Final = 2
"""Exports that run at once: each holds a connection for as long as its client reads."""


@dataclass
class Parts:
    """The parts of a service that runs, on the event loop on which it was started; None: not asked for."""

    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    exporting: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(_MOST_EXPORTS))
    redis: "RedisManager | None" = None
    database: "DatabaseManager | None" = None
    writer: "SessionWriter | None" = None
    runtime: "AgentRuntime | None" = None
    triggers: "TriggerRunner | None" = None
    background: list[Supervised] = field(default_factory=list)
