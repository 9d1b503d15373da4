"""Threads of checkpoints as the target of an import: each is one transaction, read back before it is committed."""

from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from agent_service.core.errors import SessionConflictError, SessionValueError, TransactionConflictError
from agent_service.infrastructure.database.checkpoints.changes import Change, Encoded, NewCheckpoint, NewWrites, Write
from agent_service.infrastructure.database.checkpoints.reading import Question, StoredCheckpoint, read_page
from agent_service.infrastructure.database.checkpoints.writing import write_changes
from agent_service.infrastructure.database.transactions.tenants import serve_tenant
from agent_service.integrations.importing.conversations import Unreadable
from agent_service.integrations.importing.digests import digest_of
from agent_service.integrations.importing.report import ImportProblem, Outcome, Problems, RefusedError
from agent_service.integrations.importing.run import Options

__all__ = ["Checkpoints", "Digest", "SourceCheckpoint", "SourceWrite", "ThreadTarget", "digest_of_checkpoint"]

_ATTEMPTS: Final = 5
_FIRST_PAGE: Final = 5
_PAGE: Final = 200
_BYTES: Final = 4_000_000
"""Size of what is written by one statement, or read in one page, about."""


@dataclass(frozen=True, slots=True)
class SourceWrite:
    """What a task wrote after a checkpoint."""

    task_id: str
    task_path: str
    place: int
    channel: str
    value: Encoded

    @property
    def order(self) -> tuple[str, str, int]:
        """What decides its place among the writes after its checkpoint."""
        return (self.task_path, self.task_id, self.place)


@dataclass(frozen=True, slots=True)
class SourceCheckpoint:
    """A checkpoint of the source, as the target is to store it.

    :param place: where it is in the source, for people.
    :param change: with the values of those channels whose version came first in this checkpoint.
    :param digest: of the checkpoint with all values, as :func:`digest_of_checkpoint` returns it.
    """

    place: str
    change: NewCheckpoint
    digest: bytes
    writes: tuple[SourceWrite, ...]


Checkpoints: TypeAlias = Callable[[], AsyncIterator[SourceCheckpoint | Unreadable]]
"""Reads the checkpoints of a thread, namespace by namespace, the smallest ids first."""


Digest: TypeAlias = Callable[[Encoded], bytes]
"""Returns the digest of an encoded value. Equal values have the same."""


def digest_of_checkpoint(
    checkpoint: NewCheckpoint | StoredCheckpoint, values: Iterable[tuple[str, bytes]], digest: Digest
) -> bytes:
    """Return the digest of a checkpoint.

    :param values: channels that have a value, each with the digest of the value.
    """
    named = [part for each in sorted(values) for part in each]
    return digest_of(checkpoint.parent_id or "", digest(checkpoint.document), digest(checkpoint.metadata), *named)


class ThreadTarget:
    """Brings threads into the checkpoints of the tenant of a run."""

    def __init__(self, options: Options, digest: Digest) -> None:
        self._database = options.target()
        self._digest = digest
        self._options = options

    async def bring(self, thread_id: str, place: str, checkpoints: Checkpoints) -> Outcome:
        """Store what the target lacks of a thread.

        :raises RefusedError: the target has another checkpoint in the place of one, or something cannot be stored;
            nothing was written.
        :raises DatabaseError: the database failed.
        """
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                return await self._bring(thread_id, place, checkpoints)
            except TransactionConflictError:
                if attempt == _ATTEMPTS:
                    raise
            except (SessionConflictError, SessionValueError) as exc:
                raise RefusedError(ImportProblem(place, "the target cannot store it: a name is too long")) from exc
        raise AssertionError  # pragma: no cover - the last attempt returned or raised

    async def _bring(self, thread_id: str, place: str, checkpoints: Checkpoints) -> Outcome:
        tenant_id = self._options.tenant_id
        async with self._database.session(readonly=self._options.dry_run) as db:
            serve_tenant(db, tenant_id)
            stored = _Stored(db, tenant_id, thread_id, self._digest)
            comparing = _Comparing(stored, stop=self._options.stop)
            pending: list[Change] = []
            async for each in checkpoints():
                pending += await comparing.take(each)
                if len(pending) >= _PAGE or sum(change.size for change in pending) > _BYTES:
                    await self._write(db, pending)
            await self._write(db, pending)
            if comparing.added and not self._options.dry_run:
                await _verify(place, _Stored(db, tenant_id, thread_id, self._digest), comparing)
            return comparing.outcome(new=not stored.any)

    async def _write(self, db: Any, pending: list[Change]) -> None:
        if not self._options.dry_run:
            await write_changes(db, pending, tenant_id=self._options.tenant_id)
        pending.clear()


@dataclass(slots=True)
class _Known:
    """What is known of one checkpoint: its digest, and how often each write was made."""

    digest: bytes
    writes: Counter[bytes]


class _Stored:
    """What the target has of a thread, read namespace by namespace."""

    def __init__(self, db: Any, tenant_id: str, thread_id: str, digest: Digest) -> None:
        self._db = db
        self.digest = digest
        self._tenant_id = tenant_id
        self._thread_id = thread_id
        self._namespaces: dict[str, dict[str, _Known]] = {}
        self.any = False

    async def of(self, namespace: str) -> dict[str, _Known]:
        """Return the checkpoints of a namespace by their ids."""
        if namespace not in self._namespaces:
            found = {each.checkpoint_id: _known(each, self.digest) async for each in self._walk(namespace)}
            self._namespaces[namespace] = found
            self.any = self.any or bool(found)
        return self._namespaces[namespace]

    async def _walk(self, namespace: str) -> AsyncIterator[StoredCheckpoint]:
        before: str | None = None
        limit = _FIRST_PAGE
        while True:
            question = Question(self._thread_id, namespace, before=before)
            connection = await self._db.connection()
            page = await connection.run_sync(read_page, self._tenant_id, question, limit)
            size = 1
            for each in page:
                size += sum(len(value.value) for value in each.values.values()) + len(each.document.value)
                size += sum(len(write.value.value) for write in each.writes)
                yield each
            if len(page) < limit:
                return
            before = page[-1].checkpoint_id
            limit = max(1, min(_PAGE, _BYTES * len(page) // size))


def _known(stored: StoredCheckpoint, digest: Digest) -> _Known:
    values = [(channel, digest(value)) for channel, value in stored.values.items()]
    writes = Counter(digest_of(each.task_id, each.channel, digest(each.value)) for each in stored.writes)
    return _Known(digest_of_checkpoint(stored, values, digest), writes)


class _Comparing:
    """One thread of the source, beside what the target has of it."""

    def __init__(self, stored: _Stored, *, stop: bool) -> None:
        self._stored = stored
        self._stop = stop
        self._items = 0
        self._problems = Problems()
        self.added = 0
        self.wanted: dict[tuple[str, str], _Known] = {}

    async def take(self, checkpoint: SourceCheckpoint | Unreadable) -> list[Change]:
        """Compare the next checkpoint; return what the target lacks of it."""
        if isinstance(checkpoint, Unreadable):
            problem = ImportProblem(checkpoint.place, checkpoint.reason)
            if self._stop:
                raise RefusedError(problem)
            self._problems.add(problem)
            return []
        change = checkpoint.change
        digest = self._stored.digest
        writes = Counter(digest_of(each.task_id, each.channel, digest(each.value)) for each in checkpoint.writes)
        self.wanted[change.namespace, change.checkpoint_id] = _Known(checkpoint.digest, writes)
        self._items += 1 + len(checkpoint.writes)
        there = (await self._stored.of(change.namespace)).get(change.checkpoint_id)
        if there is None:
            self.added += 1 + len(checkpoint.writes)
            return [change, *_changes(checkpoint)]
        if there.digest != checkpoint.digest:
            raise RefusedError(
                ImportProblem(
                    checkpoint.place,
                    "the target holds another checkpoint of its id; delete the thread in the target to bring it over "
                    "again",
                )
            )
        missing = (writes - there.writes).total()
        self.added += missing
        return _changes(checkpoint) if missing else []

    def outcome(self, *, new: bool) -> Outcome:
        """Return what became of the thread."""
        change: Any = "unchanged" if not self.added else "added" if new else "extended"
        return Outcome(change, self._items, self.added, self._problems)


def _changes(checkpoint: SourceCheckpoint) -> list[Change]:
    tasks: dict[tuple[str, str], list[Write]] = {}
    for each in checkpoint.writes:
        tasks.setdefault((each.task_id, each.task_path), []).append(Write(each.place, each.channel, each.value))
    change = checkpoint.change
    return [
        NewWrites(change.thread_id, change.namespace, change.checkpoint_id, task_id, task_path, writes)
        for (task_id, task_path), writes in tasks.items()
    ]


async def _verify(place: str, stored: _Stored, comparing: _Comparing) -> None:
    """Read back every checkpoint, and compare it with the source's."""
    for (namespace, checkpoint_id), wanted in comparing.wanted.items():
        found = (await stored.of(namespace)).get(checkpoint_id)
        if found is None or found.digest != wanted.digest or wanted.writes - found.writes:
            raise RefusedError(
                ImportProblem(
                    place,
                    f"checkpoint {checkpoint_id!a:.80} read back from the target is not the source's; nothing of the "
                    "thread was stored",
                )
            )
