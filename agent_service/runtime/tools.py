"""Synchronous tools over asynchronous state."""

from collections.abc import Coroutine, Mapping
from typing import Any, TypeVar

from agent_service.runtime.runtime import AgentRuntime
from agent_service.tenants.current import current_shared_state
from agent_service.tenants.shared_state import RedisSharedState

__all__ = ["AsyncToolMixin"]

T = TypeVar("T")


class AsyncToolMixin:
    """Gives a tool that runs in a thread the shared state of its request. Adds no fields to a pydantic tool.

    ::

        class EmailValidatorTool(AsyncToolMixin, BaseTool):
            email: str

            def run(self) -> str:
                self.set_state_field("tool_history", "last_tool", "email_validator")
                ...

    It works in any thread that carries the request's ContextVars, as those of the runtime's pools do. On the thread of
    the event loop every method raises ``BridgeError`` at once: there, await ``self.shared_state`` instead.
    """

    @property
    def shared_state(self) -> RedisSharedState:
        """The shared state bound to the current context.

        :raises LookupError: if none is bound.
        """
        try:
            return current_shared_state.get()
        except LookupError:
            raise LookupError(
                "no shared state is bound here; bind one with shared_state_scope(tenant, user_id) or "
                "SharedStateMiddleware, and run tools in the runtime's pools"
            ) from None

    def run_async(self, coro: Coroutine[Any, Any, T], timeout: float | None = 30.0) -> T:
        """Run a coroutine on the runtime's loop and return its result.

        :param timeout: seconds, after which the coroutine is cancelled; None: wait as long as it takes.
        :raises BridgeTimeoutError: if it did not end in time.
        :raises BridgeError: if called on the loop's own thread, or if the runtime shuts down.
        :raises RuntimeStateError: if there is no runtime.
        """
        try:
            bridge = AgentRuntime.get().bridge
        except BaseException:
            coro.close()
            raise
        return bridge.run(coro, timeout)

    def get_state(self, state_name: str) -> dict[str, Any]:
        """Return a state; {} if there is none."""
        return self.run_async(self.shared_state.get(state_name)) or {}

    def set_state(self, state_name: str, data: Mapping[str, Any]) -> bool:
        """Replace a state; return True."""
        return self.run_async(self.shared_state.set(state_name, data))

    def get_state_field(self, state_name: str, field: str) -> Any:
        """Return one field of a state; None if there is none."""
        return self.run_async(self.shared_state.get_field(state_name, field))

    def set_state_field(self, state_name: str, field: str, value: Any) -> bool:
        """Set one field of a state; return True."""
        return self.run_async(self.shared_state.set_field(state_name, field, value))
