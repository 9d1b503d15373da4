"""Request an invalidation as part of a database transaction."""

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

    A plain function, so that no forgotten ``await`` can lose it. It adds a row to the transaction, sent with the
    session's next flush: a rollback, also to a savepoint, removes it. After the commit :func:`run_outbox` of this
    process starts at once; if this process dies first, any other process applies the row. Without any names nothing
    is added.

    :param db_session: an AsyncSession, or a Session, of the database that DATABASE_URL names.
    :param keys: entries to remove.
    :param tags: entries to remove that carry one of these.
    :param patterns: entries to remove whose keys match one of these Redis globs, which costs a pass over all keys.
    :param namespace: of :func:`get_cache`.
    :raises CacheKeyError: if a key, tag, pattern or namespace cannot be used, or one str is given instead of several;
        nothing was added.
    :raises SessionValueError: if ``db_session`` is no session.
    """
    asked = Invalidation.of(keys=keys, tags=tags, patterns=patterns, namespace=namespace)
    add_rows(db_session, (part.to_json() for part in asked.parts()), after_commit=ring)
