"""The runtime of agents and tools: an event loop, thread pools that carry context, a limiter, Redis, a database."""

from agent_service.runtime.config import GlobalSymphonyConfig
from agent_service.runtime.middleware import SharedStateMiddleware
from agent_service.runtime.runtime import AgentRuntime, GlobalSymphony
from agent_service.runtime.tools import AsyncToolMixin

__all__ = ["AgentRuntime", "AsyncToolMixin", "GlobalSymphony", "GlobalSymphonyConfig", "SharedStateMiddleware"]
