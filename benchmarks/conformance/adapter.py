"""The face that every library shows to the probes."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from enum import Enum, auto
from types import TracebackType
from typing import Any, ClassVar, Self, TypeAlias

__all__ = ["PLAIN", "Adapter", "Feature", "Function", "Options", "Staleness", "Store"]

Function: TypeAlias = Callable[..., Coroutine[Any, Any, Any]]


class Feature(Enum):
    """What a library has at all. The probes find out what it is worth."""

    ASYNC = "async calls"
    SERVER = "a server"
    L1 = "an L1"
    TAGS = "tags"


class Store(Enum):
    """Where a cache is to keep its entries, for a library that leaves the choice."""

    OWN = auto()
    """In the process, where it can."""
    SERVER = auto()
    """In Redis."""
    NEAR = auto()
    """In the process, in front of Redis."""


@dataclass(frozen=True, slots=True)
class Options:
    """How a function is to be cached.

    ``tag`` is a template such as ``"user:{n}"``. ``one_process`` asks for one load among all processes.
    """

    ttl: float = 60.0
    tag: str = ""
    cache_none: bool = False
    one_process: bool = False


PLAIN = Options()


@dataclass(frozen=True, slots=True)
class Staleness:
    """Seconds, but ``refresh_at``, which is a fraction of ``ttl``."""

    ttl: float
    stale_for: float
    soft_timeout: float
    hard_timeout: float
    refresh_at: float


class Adapter(ABC):
    """One library, set up as its documentation says. An async context manager.

    :param url: a Redis that answers, or did.
    """

    name: ClassVar[str]
    features: ClassVar[frozenset[Feature]]
    listening: ClassVar[int] = 0
    """Connections that listen for changes, beside those that calls make."""

    def __init__(self, url: str, store: Store) -> None:
        self.url = url
        self.store = store

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        return None

    @abstractmethod
    def cached(self, function: Function, options: Options = PLAIN) -> Function:
        """Decorate an ``async def`` function."""

    @abstractmethod
    async def invalidate(self, function: Function, *args: object) -> None:
        """Remove the entry of a call of a function that :meth:`cached` gave."""

    async def invalidate_tag(self, tag: str) -> None:
        """Invalidate what carries a tag. Asked of those with ``Feature.TAGS`` only."""
        raise LookupError(f"{self.name} has no tags: {tag}")

    def stale_served(self, function: Function, staleness: Staleness) -> list[Function]:  # noqa: ARG002 - for those who can
        """Decorate with as much of this as the library can do at once; several ways, where it has them."""
        return []
