"""Repositories: what an application writes to keep contexts in tables of its own."""

import inspect
from collections.abc import Mapping
from typing import Any, Final, Protocol, cast, runtime_checkable

from agent_service.context.outside.awaited import AwaitedMethod
from agent_service.core.errors import ContextStoreError
from agent_service.core.plain_threads import PlainThreads

__all__ = ["DbRepository", "SyncDbRepository", "VersionedDbRepository", "adapt_repository", "require_methods"]

_REQUIRED: Final = ("get", "set", "delete")
_THREADS: Final = 16
"""For the plain methods of one repository."""


@runtime_checkable
class DbRepository(Protocol):
    """Keeps JSON-serialisable contexts under text keys. The implementation may restrict keys and map them to a schema.

    A repository that keeps other data than it is given says so by ``restricts_keys = True``, or returns from ``set``
    the mapping that it kept. One that can merge atomically has ``update(context_key, patch)``, which returns the whole;
    one with a version is a :class:`VersionedDbRepository`. Methods may be coroutines or plain, and plain ones may
    return what is to be awaited. One that can list its keys is better a :class:`ContextStore`.
    """

    async def get(self, context_key: str) -> dict[str, Any] | None:
        """Return the data stored under the key, or None."""
        ...

    async def set(self, context_key: str, data: Mapping[str, Any]) -> Any:
        """Store data in place of any other."""
        ...

    async def delete(self, context_key: str) -> Any:
        """Remove what is stored under the key, if anything."""
        ...


@runtime_checkable
class SyncDbRepository(Protocol):
    """A :class:`DbRepository` of plain methods; each call runs in a thread."""

    def get(self, context_key: str) -> dict[str, Any] | None:
        """Return the data stored under the key, or None."""
        ...

    def set(self, context_key: str, data: Mapping[str, Any]) -> Any:
        """Store data in place of any other."""
        ...

    def delete(self, context_key: str) -> Any:
        """Remove what is stored under the key, if anything."""
        ...


@runtime_checkable
class VersionedDbRepository(DbRepository, Protocol):
    """A repository whose contexts have a version: compare-and-set and updates over it hold between processes, too.

    ::

        async def set_versioned(self, context_key, data, expected_version):
            statement = update(Contexts).where(Contexts.key == context_key, Contexts.version == expected_version)
            return (await db.execute(statement.values(data=data, version=expected_version + 1))).rowcount == 1
    """

    async def get_versioned(self, context_key: str) -> tuple[dict[str, Any], Any] | None:
        """Return the data stored under the key and its version, or None."""
        ...

    async def set_versioned(self, context_key: str, data: Mapping[str, Any], expected_version: Any) -> bool:
        """Store data if the present version is the expected one (None: nothing is stored); return whether it was."""
        ...


class _AwaitedRepository:
    """A repository whose methods are awaited, whatever those of the one below are."""

    def __init__(self, repository: Any) -> None:
        self._repository = repository
        threads = PlainThreads(_THREADS, "outside-repository")
        self.get = AwaitedMethod(repository.get, threads, writes=False)
        self.set = AwaitedMethod(repository.set, threads, writes=True)
        self.delete = AwaitedMethod(repository.delete, threads, writes=True)
        if callable(getattr(repository, "update", None)):
            self.update = AwaitedMethod(repository.update, threads, writes=True)


def adapt_repository(repository: DbRepository | SyncDbRepository) -> DbRepository:
    """Return a repository whose methods can be awaited: the same one where all three are coroutines, else one over it.

    :raises ContextStoreError: for an object without ``get``, ``set`` and ``delete``.
    """
    require_methods(repository, "repository")
    if all(inspect.iscoroutinefunction(getattr(repository, each)) for each in _REQUIRED):
        return cast("DbRepository", repository)
    return _AwaitedRepository(repository)


def require_methods(given: Any, name: str) -> None:
    """Refuse what lacks one of the methods that every store and repository has.

    :raises ContextStoreError: naming the argument, its type and what is missing.
    """
    missing = [each for each in _REQUIRED if not callable(getattr(given, each, None))]
    if missing or isinstance(given, type):
        found = f"a {type(given).__name__} lacks {', '.join(missing)}"
        if isinstance(given, type):
            found = f"{given.__name__} is a class; make an instance of it"
        raise ContextStoreError(f"{name} must have the methods get, set and delete; {found}")
