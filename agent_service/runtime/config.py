"""The settings of a runtime: sizes, addresses, and what to do if Redis is down at the start."""

import os
from dataclasses import dataclass, field

from agent_service.core.errors import ConfigurationError

__all__ = ["GlobalSymphonyConfig"]


@dataclass(frozen=True, kw_only=True, slots=True)
class GlobalSymphonyConfig:
    """Frozen settings of an :class:`~agent_service.runtime.runtime.AgentRuntime`; equal ones make equal runtimes.

    :param redis_url: the Redis of ``runtime.redis``, of repositories and of ``ops``; None: REDIS_URL. Caches and stores
        without a URL of their own use REDIS_URL in any case. Never shown by ``repr``.
    :param database_url: the database of ``runtime.database``; None: DATABASE_URL. ``get_session()`` uses DATABASE_URL
        in any case. Never shown by ``repr``.
    :param workers_user: threads of ``pool_user``; by default four for each CPU.
    :param workers_tool: threads of ``pool_tool``.
    :param workers_agent: threads of ``pool_agent``.
    :param max_concurrent: how many holders ``limiter`` admits at once.
    :param start_degraded: start although Redis does not answer; operations on it raise until it does.
    :raises ConfigurationError: if a number is below 1. A URL is checked when the runtime is created.
    """

    redis_url: str | None = field(default=None, repr=False)
    database_url: str | None = field(default=None, repr=False)
    workers_user: int = field(default_factory=lambda: (os.cpu_count() or 1) * 4)
    workers_tool: int = 32
    workers_agent: int = 16
    max_concurrent: int = 128
    start_degraded: bool = False

    def __post_init__(self) -> None:
        for name in ("workers_user", "workers_tool", "workers_agent", "max_concurrent"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ConfigurationError(f"{name} must be an int of at least 1, got {value!r:.80}")
