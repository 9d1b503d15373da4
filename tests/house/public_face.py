"""The public face as text: what can be imported from where, and how it is called. Rewrite it with

``python -m tests.house.public_face``
"""

import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic_settings import BaseSettings

RECORD = Path(__file__).with_name("public_face.txt")

MODULES = (
    "agent_service",
    "agent_service.cli",
    "agent_service.context",
    "agent_service.context.adapters",
    "agent_service.context.base",
    "agent_service.context.moving",
    "agent_service.context.sync",
    "agent_service.core.codec",
    "agent_service.core.errors",
    "agent_service.core.logging",
    "agent_service.core.settings",
    "agent_service.infrastructure.cache",
    "agent_service.infrastructure.database",
    "agent_service.infrastructure.database.beside",
    "agent_service.infrastructure.database.connection",
    "agent_service.infrastructure.database.maintenance",
    "agent_service.infrastructure.database.models",
    "agent_service.infrastructure.database.models.session",
    "agent_service.infrastructure.database.repositories",
    "agent_service.infrastructure.limits",
    "agent_service.infrastructure.outbox",
    "agent_service.infrastructure.redis",
    "agent_service.infrastructure.redis.ops",
    "agent_service.runtime",
    "agent_service.state",
    "agent_service.state.models",
    "agent_service.tenants",
    "agent_service.tenants.keys",
    "agent_service.testing",
    "agent_service.testing.context_contracts",
    "agent_service.testing.state_contracts",
)
"""The paths that the documents promise."""


def current() -> str:
    """Return the public face of the package as it is."""
    return "".join(f"{line}\n" for module in MODULES for line in _of_module(module))


def _of_module(name: str) -> Iterator[str]:
    module = importlib.import_module(name)
    for shown in sorted(module.__all__):
        thing = getattr(module, shown)
        yield f"{name}.{shown}{_signature(thing)}"
        home = getattr(thing, "__module__", "")
        if inspect.isclass(thing) and home.startswith("agent_service") and not name.endswith("contracts"):
            yield from sorted(_members(f"{name}.{shown}", thing))


def _members(path: str, kind: type) -> Iterator[str]:
    for member, value in inspect.getmembers_static(kind):
        owner = next((each for each in kind.__mro__ if member in vars(each)), object)
        if member.startswith("_") or not owner.__module__.startswith("agent_service"):
            continue
        if isinstance(value, property):
            yield f"{path}.{member}: property"
        elif inspect.isroutine(value) or isinstance(value, classmethod | staticmethod):
            yield f"{path}.{member}{_signature(getattr(kind, member))}"
        else:
            yield f"{path}.{member}"


def _signature(thing: Any) -> str:
    if not callable(thing):
        return f": {type(thing).__name__}"
    if inspect.isclass(thing) and issubclass(thing, BaseSettings):
        return f"({', '.join(f'{field}={each.default!r}' for field, each in thing.model_fields.items())})"
    try:
        signature = inspect.signature(thing)
    except (TypeError, ValueError):
        return ""
    text = str(signature)
    text = re.sub(r"<function (?:\w+\.)*(\w+) at 0x\w+>", r"\1", text)
    text = re.sub(r"<built-in function (\w+)>", r"\1", text)
    text = re.sub(r" at 0x\w+", "", text)
    return re.sub(r"\b(?:[a-z_]\w*\.)+([A-Za-z_])", r"\1", text)


if __name__ == "__main__":
    RECORD.write_text(current(), encoding="utf-8")
