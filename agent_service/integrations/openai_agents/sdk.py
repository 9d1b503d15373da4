"""What is needed of the SDK at run time; everything else of it is known by its shape."""

from typing import TYPE_CHECKING, Any, TypeAlias

try:
    from agents import SessionSettings
except ImportError as exc:
    raise ImportError('DatabaseSession needs openai-agents: pip install "agent-service[openai-agents]"') from exc

if TYPE_CHECKING:
    from agents import RunContextWrapper, TResponseInputItem

    Item: TypeAlias = TResponseInputItem
    Wrapper: TypeAlias = RunContextWrapper[Any]

__all__ = ["SessionSettings"]
