"""Which parts a service was asked for."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from agent_service.core.errors import ConfigurationError

if TYPE_CHECKING:
    from agent_service.infrastructure.database.engine.manager import DatabaseManager
    from agent_service.runtime.config import GlobalSymphonyConfig
    from agent_service.tenants.runner import TriggerRunner

__all__ = ["Wanted", "require_callable", "require_seconds"]

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
    outbox: bool
    triggers: "Callable[[], TriggerRunner] | None"
    runtime: "bool | GlobalSymphonyConfig"
    background: Sequence[Callable[[], Awaitable[object]]]
    start_degraded: bool

    def require_possible(self) -> None:
        """Require that each part is one that can be opened, and that none needs another one that was not asked for.

        :raises ConfigurationError: an argument cannot be used.
        """
        self._require_kinds()
        needs = {"writer": self.writer, "cleanup": self.cleanup is not None, "outbox": self.outbox}
        for name, asked_for in needs.items():
            if asked_for and self.database is False:
                raise ConfigurationError(f"{name} needs a database; make the service with database=True, or without it")
        if self.outbox and not self.cache:
            raise ConfigurationError("outbox needs the cache that it invalidates; make the service with cache=True")
        if self.purge_after is not None and self.cleanup is None:
            raise ConfigurationError("purge_after is for the cleanup; make the service with cleanup=True")

    def _require_kinds(self) -> None:
        if not isinstance(self.database, bool | str):
            from agent_service.infrastructure.database.engine.manager import DatabaseManager  # noqa: PLC0415

            if not isinstance(self.database, DatabaseManager):
                raise _wrong("database", "True, False, a URL or a DatabaseManager", self.database)
        if not isinstance(self.runtime, bool):
            from agent_service.runtime.config import GlobalSymphonyConfig  # noqa: PLC0415

            if not isinstance(self.runtime, GlobalSymphonyConfig):
                raise _wrong("runtime", "True, False or a GlobalSymphonyConfig", self.runtime)
        if self.triggers is not None:
            require_callable(self.triggers, "triggers", "a function or class that makes a trigger runner")
        for index, work in enumerate(self.background):
            require_callable(work, f"background[{index}]", "a function that returns an awaitable")
        if self.purge_after is not None and not (
            isinstance(self.purge_after, timedelta) and self.purge_after >= timedelta()
        ):
            raise _wrong("purge_after", "a timedelta of at least 0, such as timedelta(days=30)", self.purge_after)


def require_callable(value: object, name: str, kind: str) -> None:
    """Require something that can be called.

    :param kind: what it must be, for the error.
    :raises ConfigurationError: if it cannot be called.
    """
    if not callable(value):
        raise _wrong(name, kind, value)


def _wrong(name: str, kind: str, value: object) -> ConfigurationError:
    return ConfigurationError(f"{name} must be {kind}, got {value!r:.80}")


def require_seconds(value: float, name: str) -> float:
    """Return a number of seconds above 0, at most a day.

    :raises ConfigurationError: if it is none.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= _DAY:
        raise ConfigurationError(f"{name} must be seconds above 0, at most a day, got {value!r:.80}")
    return float(value)
