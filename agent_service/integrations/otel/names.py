"""Names of the semantic conventions (1.40), and the attributes that say where a database is."""

from typing import Final

from agent_service.core.tracing import Server

__all__ = [
    "BOUNDS",
    "COLLECTION",
    "CONVERSATION",
    "ERROR_TYPE",
    "OPERATION",
    "Attributes",
    "error_type",
    "server_attributes",
]

Attributes = dict[str, str | int]

OPERATION: Final = "db.operation.name"
COLLECTION: Final = "db.collection.name"
ERROR_TYPE: Final = "error.type"
CONVERSATION: Final = "gen_ai.conversation.id"
BOUNDS: Final = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0)
"""Of histograms of the duration of database operations, in seconds."""


def server_attributes(server: Server) -> Attributes:
    """Return the attributes of a server; what is not known is left out."""
    found = {
        "db.system.name": server.system,
        "db.namespace": server.namespace,
        "server.address": server.address,
        "server.port": server.port,
    }
    return {name: value for name, value in found.items() if value is not None}


def error_type(error: BaseException) -> str:
    """Return the class of an error. Its text may hold what callers gave, so it is not reported."""
    return type(error).__qualname__
