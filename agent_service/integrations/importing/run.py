"""A run: page after page of a source's conversations, each brought over whole, and the position remembered."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, Protocol

from agent_service.core.errors import ConfigurationError
from agent_service.infrastructure.database.connection import get_database
from agent_service.infrastructure.database.engine.manager import DatabaseManager
from agent_service.infrastructure.database.foreign import Reading, SourceDatabase
from agent_service.infrastructure.database.values.validation import require_tenant
from agent_service.integrations.importing.report import (
    ImportProblem,
    ImportReport,
    ImportStoppedError,
    Outcome,
    RefusedError,
)
from agent_service.integrations.importing.state import Position, RunState

__all__ = ["Job", "OnProblem", "Options", "Phase", "Progress", "run_import"]

OnProblem = Literal["stop", "skip"]
Progress = Callable[[ImportReport], None]

PAGE: Final = 50
"""Conversations that are read in one transaction of the source, and repeated at most after a crash."""


class Phase(Protocol):
    """One kind of conversation of a source."""

    async def count(self, reading: Reading) -> int:
        """Return how many there are."""
        ...

    async def keys(self, reading: Reading, after: Sequence[Any] | None, limit: int) -> list[tuple[Any, ...]]:
        """Return the next keys, which JSON can hold, in a fixed order."""
        ...

    async def bring(self, reading: Reading, key: tuple[Any, ...]) -> Outcome:
        """Bring one over, all or nothing.

        :raises RefusedError: it cannot be brought over.
        """
        ...


@dataclass(frozen=True, slots=True)
class Options:
    """What all imports can be told.

    :param database: where to; None: the database of the settings.
    :param tenant_id: whose the conversations become.
    :param on_problem: what to do with an item that cannot be brought over: ``stop``, so that nothing of its
        conversation is written, or ``skip`` it and go on. Both name it.
    :param dry_run: read and compare everything, and write nothing.
    :param restart: compare from the beginning, even if an earlier run was interrupted.
    :param progress: called with the report after each page of conversations, and at the end.
    :raises ConfigurationError: ``on_problem`` is neither.
    :raises SessionValueError: ``tenant_id`` cannot be one.
    """

    database: DatabaseManager | None = None
    tenant_id: str = ""
    on_problem: OnProblem = "stop"
    dry_run: bool = False
    restart: bool = False
    progress: Progress | None = None

    def __post_init__(self) -> None:
        require_tenant(self.tenant_id)
        if self.on_problem not in ("stop", "skip"):
            raise ConfigurationError(f'on_problem must be "stop" or "skip", got {self.on_problem!r:.80}')

    @property
    def stop(self) -> bool:
        """Whether a problem ends the run."""
        return self.on_problem == "stop"

    def target(self) -> DatabaseManager:
        """Return where to import."""
        return get_database() if self.database is None else self.database


@dataclass(frozen=True, slots=True)
class Job:
    """What a run does.

    :param name: what tells its position from those of other runs, beside source and tenant.
    """

    source: SourceDatabase
    name: tuple[str, ...]
    phases: Sequence[Phase]


async def run_import(job: Job, options: Options) -> ImportReport:
    """Bring over what the target lacks, and return what was done.

    :raises ImportStoppedError: something cannot be brought over, and ``on_problem`` is ``stop``.
    :raises DatabaseError: one of the databases failed; another run goes on from there.
    """
    return await _Run(job, options).work()


class _Run:
    def __init__(self, job: Job, options: Options) -> None:
        self._job = job
        self._options = options
        self._report = ImportReport(str(job.source), dry_run=options.dry_run)
        run = (*job.name, job.source.place, options.tenant_id)
        self._state = RunState(options.target(), run)
        self._position = Position()
        self._started = time.perf_counter()

    async def work(self) -> ImportReport:
        options, report = self._options, self._report
        if not options.dry_run:
            if options.restart:
                await self._state.clear()
            self._position = await self._state.load()
        report.earlier, report.problems = self._position.done, self._position.problems
        async with self._job.source.reading() as reading:
            for phase in self._job.phases:
                report.total += await phase.count(reading)
        for number in range(self._position.phase, len(self._job.phases)):
            if number > self._position.phase:
                self._position = Position(number, None, self._position.done, report.problems)
            while await self._page(self._job.phases[number]):
                self._tell()
        if not options.dry_run:
            await self._state.clear()
        self._tell()
        return report

    async def _page(self, phase: Phase) -> bool:
        """Bring over the next page; return whether there may be another one."""
        async with self._job.source.reading() as reading:
            keys = await phase.keys(reading, self._position.after, PAGE)
            for key in keys:
                try:
                    _require_text(key)
                    self._report.count(await phase.bring(reading, key))
                except RefusedError as exc:
                    if self._options.stop:
                        await self._save()
                        self._tell()
                        raise ImportStoppedError(exc.problem, self._report) from exc
                    self._report.skip(exc.problem)
                self._position.after = key
                self._position.done += 1
        await self._save()
        return len(keys) == PAGE

    async def _save(self) -> None:
        # After a key that is no text there is no position that can be kept; the next page saves one.
        if not self._options.dry_run and not self._position.is_beginning and _is_text(self._position.after or ()):
            await self._state.save(self._position)

    def _tell(self) -> None:
        self._report.seconds = time.perf_counter() - self._started
        if self._options.progress is not None:
            self._options.progress(self._report)


def _require_text(key: Sequence[Any]) -> None:
    if not _is_text(key):
        shown = "/".join(ascii(part)[:80] for part in key)
        raise RefusedError(ImportProblem(f"conversation {shown}", "its id is no text in UTF-8"))


def _is_text(key: Sequence[Any]) -> bool:
    # What SQLite keeps of other encodings is read as lone surrogates.
    return all(isinstance(part, str) and not any("\ud800" <= each <= "\udfff" for each in part) for part in key)
