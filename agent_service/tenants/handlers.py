"""The handlers of actions: one registry per process."""

import inspect
from collections.abc import Awaitable, Callable, Mapping
from types import MappingProxyType
from typing import Final, TypeAlias, TypeVar

from agent_service.core.errors import RecordValueError
from agent_service.tenants.keys import encode_component
from agent_service.tenants.schedule import Trigger

__all__ = ["HANDLERS", "WATCHERS", "Handler", "on_trigger"]

Handler: TypeAlias = Callable[[Trigger], Awaitable[object]]
H = TypeVar("H", bound=Handler)

_handlers: dict[str, Handler] = {}

HANDLERS: Final[Mapping[str, Handler]] = MappingProxyType(_handlers)
"""The current handlers by action."""

WATCHERS: Final[set[Callable[[], None]]] = set()
"""Called after a handler was registered, on the thread that registers it."""


def on_trigger(action: str) -> Callable[[H], H]:
    """Register an async function as the handler of an action, in every process that runs a ``TriggerRunner``.

    ::

        @on_trigger("send_reminder")
        async def send_reminder(trigger: Trigger) -> None:
            await remind(trigger.tenant, trigger.identifier)

    A trigger is handled at least once, so handlers must be idempotent: a handler may be called again for the same
    ``due_at``. If it raises, the runner tries again later.

    :raises RecordValueError: if the action cannot be used or has another handler, or the function is not async.
    """
    encode_component(action, "action")

    def register(handler: H) -> H:
        if not inspect.iscoroutinefunction(handler) and not inspect.iscoroutinefunction(
            getattr(handler, "__call__", None)  # noqa: B004 - an object whose call is async will do
        ):
            raise RecordValueError(
                f"the handler of {action!r} must be an async function, got {handler!r:.80}; "
                "for work that blocks, await asyncio.to_thread() in one"
            )
        other = _handlers.get(action)
        if other is not None and _name(other) != _name(handler):
            raise RecordValueError(f"action {action!r} is handled by {_name(other)} already; give another action")
        _handlers[action] = handler
        for each in tuple(WATCHERS):
            each()
        return handler

    return register


def _name(handler: Handler) -> str:
    kind = handler if hasattr(handler, "__qualname__") else type(handler)
    return f"{kind.__module__}.{kind.__qualname__}"
