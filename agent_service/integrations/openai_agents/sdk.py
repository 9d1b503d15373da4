"""What is needed of the SDK. It is imported when a call needs it: that takes a second, and few calls do."""

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from agents import RunContextWrapper, SessionSettings, TResponseInputItem

    Item: TypeAlias = TResponseInputItem
    Wrapper: TypeAlias = RunContextWrapper[Any]

__all__ = ["settings_of"]

if find_spec("agents") is None:
    raise ImportError('DatabaseSession needs openai-agents: pip install "agent-service[openai-agents]"')


def settings_of(given: "SessionSettings | dict[str, Any] | None") -> "SessionSettings":
    """Return the SDK's settings of a session from what it takes for them."""
    from agents import SessionSettings  # noqa: PLC0415 - see above

    return SessionSettings().resolve(given)
