"""LangGraph on this package's databases: extra ``langgraph``. Each name is imported when it is first used."""

import importlib as _importlib
import typing as _typing

if _typing.TYPE_CHECKING:
    from agent_service.integrations.langgraph.saver import AgentServiceSaver

__all__ = ["AgentServiceSaver"]

_FILES = {"AgentServiceSaver": "saver"}


def __getattr__(name: str) -> object:
    if name not in _FILES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        module = _importlib.import_module(f"{__name__}.{_FILES[name]}")
    except ModuleNotFoundError as exc:
        if (exc.name or "").partition(".")[0] not in {"langgraph", "langchain_core"}:
            raise
        raise ImportError(f'{__name__} needs langgraph: pip install "agent-service[langgraph]"') from exc
    value = globals()[name] = getattr(module, name)
    return value
