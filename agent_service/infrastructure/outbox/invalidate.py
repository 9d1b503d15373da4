"""Asking for an invalidation, as part of a database transaction."""

from collections.abc import Iterable

from agent_service.infrastructure.database.outbox import DatabaseSession, add_rows
from agent_service.infrastructure.outbox.bells import ring
from agent_service.infrastructure.outbox.invalidation import Invalidation

__all__ = ["invalidate_in"]


def invalidate_in(
    db_session: DatabaseSession,
    *,
    keys: Iterable[str] = (),
    tags: Iterable[str] = (),
    patterns: Iterable[str] = (),
    namespace: str = "default",
) -> None:
    """Invalidate cached entries if, and only if, the session's transaction is committed.

    ::

        async with get_session() as db:
            await db.execute(update(User).where(User.id == 7).values(name="Grace"))
            invalidate_in(db, keys=["user:7"], namespace="users")

    Not awaited, so that no forgotten ``await`` can lose it. It adds a row to the transaction, sent with the session's
    next flush: a rollback, to a savepoint too, takes it along. After the commit :func:`run_outbox` of this process
    starts at once; if this process dies first, that of any other does it. Nothing given adds nothing.

    :param db_session: an AsyncSession, or a Session, of the database that DATABASE_URL names.
    :param keys: entries to remove.
    :param tags: entries to remove that carry one of these.
    :param patterns: entries to remove whose keys match one of these Redis globs, which costs a pass over all keys.
    :param namespace: of :func:`get_cache`.
    :raises CacheKeyError: for what a cache cannot use as key, tag, pattern or namespace, and for one str in the place
        of several; nothing was added.
    :raises SessionValueError: ``db_session`` is none.
    """
    asked = Invalidation.of(keys=keys, tags=tags, patterns=patterns, namespace=namespace)
    add_rows(db_session, (part.to_json() for part in asked.parts()), after_commit=ring)
