"""Which parts a service was asked for."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from agent_service.core.errors import ConfigurationError

if TYPE_CHECKING:
    from agent_service.infrastructure.database.engine.manager import DatabaseManager
    from agent_service.runtime.config import GlobalSymphonyConfig
    from agent_service.tenants.runner import TriggerRunner

__all__ = ["Wanted", "require_seconds"]

_DAY: Final = 86_400


@dataclass(frozen=True, kw_only=True, slots=True)
class Wanted:
    """The parts that a service was asked for; see :class:`~agent_service.integrations.fastapi.service.AgentService`."""

    cache: bool
    database: "bool | str | DatabaseManager"
    writer: bool
    append_timeout: float
    cleanup: float | None
    purge_after: timedelta | None
    purge_threads_after: timedelta | None
    purge_conversations_after: timedelta | None
    outbox: bool
    triggers: "Callable[[], TriggerRunner] | None"
    runtime: "bool | GlobalSymphonyConfig"
    background: Sequence[Callable[[], Awaitable[object]]]
    start_degraded: bool

    def require_possible(self) -> None:
        """Require that each part can be made, and needs none that was not asked for.

        :raises ConfigurationError: if it cannot, or does.
        """
        for name in ("cache", "writer", "outbox", "start_degraded"):
            _require(name, getattr(self, name), lambda value: isinstance(value, bool), "True or False")
        _require("database", self.database, _is_database, "True, False, a URL or a DatabaseManager")
        _require("runtime", self.runtime, _is_runtime, "True, False or a GlobalSymphonyConfig")
        _require("triggers", self.triggers, _is_optional_call, "TriggerRunner, or a function that makes one")
        _require("background", self.background, _are_calls, "a list of coroutine functions")
        for name, age in self.retention.items():
            _require(name, age, _is_retention, "a timedelta of at least 0, such as timedelta(days=30)")
        needs = {"writer": self.writer, "cleanup": self.cleanup is not None, "outbox": self.outbox}
        for name, asked_for in needs.items():
            if asked_for and self.database is False:
                raise ConfigurationError(f"{name} needs a database; make the service with database=True, or without it")
        if self.outbox and not self.cache:
            raise ConfigurationError("outbox needs the cache that it invalidates; make the service with cache=True")
        for name, age in self.retention.items():
            if age is not None and self.cleanup is None:
                raise ConfigurationError(f"{name} is for the cleanup; make the service with cleanup=True")

    @property
    def retention(self) -> dict[str, timedelta | None]:
        """How long the cleanup keeps what is old, by its arguments; None: for ever."""
        names = ("purge_after", "purge_threads_after", "purge_conversations_after")
        return {name: getattr(self, name) for name in names}


def require_seconds(value: float, name: str) -> float:
    """Return a number of seconds above 0, at most a day.

    :raises ConfigurationError: if it is none.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= _DAY:
        raise ConfigurationError(f"{name} must be seconds above 0, at most a day, got {value!r:.80}")
    return float(value)


def _require(name: str, value: Any, is_usable: Callable[[Any], bool], kind: str) -> None:
    if not is_usable(value):
        raise ConfigurationError(f"{name} must be {kind}, got {value!r:.80}")


def _is_database(value: Any) -> bool:
    # Without importing the database.
    made = hasattr(value, "health_check") and not isinstance(value, type)
    return isinstance(value, bool | str) or made


def _is_runtime(value: Any) -> bool:
    return isinstance(value, bool) or (hasattr(value, "start_degraded") and not isinstance(value, type))


def _is_retention(value: Any) -> bool:
    return value is None or (isinstance(value, timedelta) and value >= timedelta())


def _is_optional_call(value: Any) -> bool:
    return value is None or callable(value)


def _are_calls(value: Any) -> bool:
    return isinstance(value, tuple) and all(map(callable, value))
