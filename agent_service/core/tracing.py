"""The one place where traces and metrics of this package's operations can be taken: by nobody, unless it was asked for.

``agent_service.integrations.otel.instrument`` puts an observer here. Without one an operation costs a look at an
attribute, and a hit in a cache not even that.
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from contextvars import Context
from typing import Final, Literal, NamedTuple, Protocol, TypeAlias
from uuid import UUID

__all__ = ["TRACING", "Observer", "Server", "SpanKind", "measured", "span", "traced"]

SpanKind: TypeAlias = Literal["internal", "client", "consumer"]


class Server(NamedTuple):
    """A server of a database, or a database in this process.

    :param system: "postgresql", "sqlite" or "redis".
    :param namespace: name of the database, or its number in Redis.
    :param address: host, path of the socket, or None where there are several or none.
    """

    system: str
    namespace: str | None = None
    address: str | None = None
    port: int | None = None


class Observer(Protocol):
    """Takes traces and metrics. No method raises."""

    def span(
        self, name: str, attributes: Mapping[str, str | int], *, kind: SpanKind, root: bool
    ) -> AbstractContextManager[object]:
        """Open a span for a block.

        :param root: the block has nothing to do with what the current context is about.
        """

    def trace(
        self, server: Server, operation: str, collection: str, *, session_id: str | None
    ) -> AbstractContextManager[object]:
        """Open a span for a block that works with a database."""

    def measure(self, server: Server, operation: str, collection: str) -> AbstractContextManager[object]:
        """Measure how long a block works with a database, and note what it raises."""

    def operated(self, server: Server, operation: str, seconds: float, error: BaseException | None) -> None:
        """Note that an operation on a server has ended."""

    def carry(self, into: Context) -> None:
        """Make the current span the parent of spans that are opened in another context."""


class Tracing:
    """Holds the observer."""

    __slots__ = ("observer",)

    def __init__(self) -> None:
        self.observer: Observer | None = None


TRACING: Final = Tracing()
_NOTHING: Final = nullcontext()


def span(
    name: str, attributes: Mapping[str, str | int], *, kind: SpanKind = "internal", root: bool = False
) -> AbstractContextManager[object]:
    """Return a context manager around an operation that is worth a span."""
    observer = TRACING.observer
    return _NOTHING if observer is None else observer.span(name, attributes, kind=kind, root=root)


def traced(
    server: Callable[[], Server], operation: str, collection: str, *, session_id: UUID | str | None = None
) -> AbstractContextManager[object]:
    """Return a context manager around what a caller waits for that a database does.

    :param session_id: of the conversation that it is about.
    """
    observer = TRACING.observer
    if observer is None:
        return _NOTHING
    return observer.trace(server(), operation, collection, session_id=None if session_id is None else str(session_id))


def measured(server: Callable[[], Server], operation: str, collection: str) -> AbstractContextManager[object]:
    """Return a context manager around one operation of a database."""
    observer = TRACING.observer
    return _NOTHING if observer is None else observer.measure(server(), operation, collection)
