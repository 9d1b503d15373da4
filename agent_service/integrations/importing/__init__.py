"""Moving conversations over from the stores of agent frameworks, into this package's database.

Runs read page by page and never write to the source; they can be interrupted, repeated and resumed, and compare every
item. Each name is imported when it is first used.
"""

import importlib as _importlib
import typing as _typing

if _typing.TYPE_CHECKING:
    from agent_service.integrations.importing.adk import import_adk
    from agent_service.integrations.importing.langgraph import import_langgraph
    from agent_service.integrations.importing.openai import import_openai
    from agent_service.integrations.importing.report import ImportProblem, ImportReport, ImportStoppedError
    from agent_service.integrations.importing.run import Options

__all__ = [
    "ImportProblem",
    "ImportReport",
    "ImportStoppedError",
    "Options",
    "import_adk",
    "import_langgraph",
    "import_openai",
]

_FILES = {
    "ImportProblem": "report",
    "ImportReport": "report",
    "ImportStoppedError": "report",
    "Options": "run",
    "import_adk": "adk",
    "import_langgraph": "langgraph",
    "import_openai": "openai",
}


def __getattr__(name: str) -> object:
    if name not in _FILES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(_importlib.import_module(f"{__name__}.{_FILES[name]}"), name)
    return value
