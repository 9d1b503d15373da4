"""Sessions of the OpenAI Agents SDK in this package's database. Needs the extra ``openai-agents``.

Each name is imported when it is first used, so that ``items`` is there without the SDK.
"""

import importlib as _importlib
import typing as _typing

if _typing.TYPE_CHECKING:
    from agent_service.integrations.openai_agents.listing import list_sessions, search_items
    from agent_service.integrations.openai_agents.session import DatabaseSession
    from agent_service.integrations.openai_agents.stored import StoredItem
    from agent_service.integrations.openai_agents.usage import SessionUsage, TurnUsage, UsageSum

__all__ = ["DatabaseSession", "SessionUsage", "StoredItem", "TurnUsage", "UsageSum", "list_sessions", "search_items"]

_FILES = {
    "DatabaseSession": "session",
    "SessionUsage": "usage",
    "StoredItem": "stored",
    "TurnUsage": "usage",
    "UsageSum": "usage",
    "list_sessions": "listing",
    "search_items": "listing",
}


def __getattr__(name: str) -> object:
    if name not in _FILES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(_importlib.import_module(f"{__name__}.{_FILES[name]}"), name)
    return value
