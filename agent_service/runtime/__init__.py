"""What agents and their tools run on: a loop, thread pools that carry context, a limiter, Redis and the database."""

from agent_service.runtime.config import GlobalSymphonyConfig
from agent_service.runtime.middleware import SharedStateMiddleware
from agent_service.runtime.runtime import AgentRuntime, GlobalSymphony
from agent_service.runtime.tools import AsyncToolMixin

__all__ = ["AgentRuntime", "AsyncToolMixin", "GlobalSymphony", "GlobalSymphonyConfig", "SharedStateMiddleware"]
