"""How far a run has come, kept in the database that it writes to, so that another run goes on from there."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

from agent_service.context.database import DatabaseContextStore
from agent_service.core.errors import ContextStoreError, DatabaseError
from agent_service.infrastructure.database.engine.manager import DatabaseManager
from agent_service.integrations.importing.report import ImportProblem, Problems

__all__ = ["Position", "RunState", "database_failures"]

_KEY: Final = "agent-service-import"
_FORMAT: Final = 1


@contextmanager
def database_failures() -> Iterator[None]:
    """Let through what the database says, instead of what a store makes of it.

    :raises DatabaseError: the database failed.
    """
    try:
        yield
    except ContextStoreError as exc:
        if isinstance(exc.__cause__, DatabaseError):
            raise exc.__cause__ from exc
        raise


class Position:
    """Where a run is: in which phase, after which key, how many conversations are done, and what was skipped."""

    def __init__(
        self, phase: int = 0, after: Sequence[Any] | None = None, done: int = 0, problems: Problems | None = None
    ) -> None:
        self.phase = phase
        self.after = after
        self.done = done
        self.problems = problems or Problems()

    @property
    def is_beginning(self) -> bool:
        """Whether nothing was done yet."""
        return self.phase == 0 and self.after is None


class RunState:
    """The position of the runs of one source into one tenant, as the database keeps it.

    A conversation that is done counts as done only once the position was saved, so after a crash some are compared
    again; that changes nothing.

    :param run: what tells these runs from others.
    """

    def __init__(self, database: DatabaseManager, run: tuple[str, ...]) -> None:
        self._store = DatabaseContextStore(session_factory=database.session)
        self._key = (_KEY, *run)

    async def load(self) -> Position:
        """Return where an unfinished run has come to, else the beginning."""
        with database_failures():
            found = await self._store.get(self._key)
        if found is None or found.get("format") != _FORMAT:
            return Position()
        first = [ImportProblem(*each) for each in found.get("problems", ())]
        return Position(found["phase"], found["after"], found["done"], Problems(first, found.get("skipped", 0)))

    async def save(self, position: Position) -> None:
        """Remember where the run is."""
        after = None if position.after is None else list(position.after)
        value = {"format": _FORMAT, "phase": position.phase, "after": after, "done": position.done}
        value |= {"skipped": position.problems.count}
        value |= {"problems": [[_storable(place), _storable(reason)] for place, reason in position.problems.first]}
        with database_failures():
            await self._store.set(self._key, value)

    async def clear(self) -> None:
        """Forget the position: the run is complete, or begins anew."""
        with database_failures():
            await self._store.delete(self._key)


def _storable(text: str) -> str:
    return text.encode(errors="backslashreplace").decode().replace("\0", "\\x00")
