"""A service as a user writes it, which touches every public name: type checkers must find nothing in it.

``make lint`` runs mypy --strict over it as over the rest; ``tests/house/test_consumer.py`` says which names it misses.
"""

from collections.abc import Iterable
from datetime import timedelta
from typing import Any, assert_type

from sqlalchemy.ext.asyncio import AsyncSession

import agent_service
from agent_service import (
    NEVER,
    AgentServiceError,
    BridgeError,
    BridgeTimeoutError,
    CacheError,
    CacheKeyError,
    CacheSerializationError,
    CacheValueError,
    ConfigurationError,
    ContextConfigError,
    ContextError,
    ContextKeyError,
    ContextStoreError,
    DatabaseError,
    DatabaseUnavailableError,
    ICache,
    LoadTimeoutError,
    RateLimitError,
    RateLimitExceededError,
    RateLimitValueError,
    RecordValueError,
    RedisBusyError,
    RedisCommandError,
    RedisDeniedError,
    RedisOperationError,
    RedisRefusedError,
    RedisUnavailableError,
    RedisUnreplicatedError,
    ReentrantLoadError,
    RuntimeStateError,
    Session,
    SessionConflictError,
    SessionError,
    SessionNotFoundError,
    SessionRepository,
    SessionStatus,
    SessionValueError,
    SessionWriter,
    Settings,
    StateConflictError,
    StateStoreError,
    TransactionConflictError,
    UndecodableError,
    cache_invalidate,
    cached,
    cleanup_once,
    close_cache,
    close_database,
    get_cache,
    get_database,
    get_redis_manager,
    get_session,
    get_settings,
    invalidate_in,
    logger,
    reset_settings,
    run_cleanup,
    run_outbox,
    setup_logging,
)
from agent_service.infrastructure.cache import CacheInfo, Loaded
from agent_service.infrastructure.database import CleanupCounts

RETRY: tuple[type[AgentServiceError], ...] = (
    BridgeTimeoutError,
    DatabaseUnavailableError,
    LoadTimeoutError,
    RedisBusyError,
    RedisUnavailableError,
    RedisUnreplicatedError,
    StateConflictError,
    TransactionConflictError,
)
ANSWER: dict[type[AgentServiceError], int] = {
    BridgeError: 500,
    CacheError: 500,
    CacheKeyError: 400,
    CacheSerializationError: 500,
    CacheValueError: 400,
    ConfigurationError: 500,
    ContextConfigError: 500,
    ContextError: 500,
    ContextKeyError: 400,
    ContextStoreError: 500,
    DatabaseError: 500,
    RateLimitError: 500,
    RateLimitExceededError: 429,
    RateLimitValueError: 400,
    RecordValueError: 400,
    RedisCommandError: 500,
    RedisDeniedError: 500,
    RedisOperationError: 500,
    RedisRefusedError: 503,
    ReentrantLoadError: 500,
    RuntimeStateError: 500,
    SessionConflictError: 409,
    SessionError: 500,
    SessionNotFoundError: 404,
    SessionValueError: 400,
    StateStoreError: 500,
    UndecodableError: 500,
}


class Users:
    """Methods that are cached."""

    @cached(ttl=60, key="user:{uid}")
    async def name(self, uid: int) -> str:
        """Return the name of a user."""
        return f"user {uid}"

    @classmethod
    @cached(ttl=timedelta(minutes=1))
    async def all_of(cls, team: str, *, limit: int = 10) -> list[str]:
        """Return the names of a team."""
        return [team][:limit]

    @cache_invalidate("user:{uid}")
    async def rename(self, uid: int, name: str) -> str:
        """Rename a user."""
        return f"{uid}: {name}"


@cached(ttl=NEVER)
async def rate(currency: str) -> float:
    """Return a rate of exchange."""
    return float(len(currency))


async def decorated(users: Users) -> None:
    """What calls and what invalidations take and return."""
    assert_type(await users.name(1), str)
    assert_type(await users.name.invalidate(1), bool)
    assert_type(await Users.name.invalidate(users, 1), bool)
    assert_type(await Users.all_of("red", limit=3), list[str])
    assert_type(await Users.all_of.invalidate("red", limit=3), bool)
    assert_type(await users.rename(1, "Ann"), str)
    assert_type(await rate("nok"), float)
    assert_type(rate.cache_info(), CacheInfo)


async def by_hand(untyped: ICache, typed: ICache[int]) -> None:
    """What a cache without and with a parameter returns."""

    async def load() -> int:
        return 1

    async def load_many(keys: list[str]) -> dict[str, int]:
        return dict.fromkeys(keys, 1)

    cache = await get_cache("numbers")
    assert_type(cache, ICache[Any])
    assert_type(await cache.get_or_load("one", load, ttl=5), int)
    assert_type(await cache.get_or_load("one", load, info=True), Loaded[int])
    assert_type(await untyped.get_or_load("one", load), int)
    assert_type(await untyped.get_or_load_many(["one"], load_many), dict[str, int])
    assert_type(await typed.get("one"), int | None)
    assert_type(await typed.get("one", "none"), int | str)
    assert_type(await typed.get_many(["one"]), dict[str, int])
    assert_type(await typed.increment("one"), int)
    assert_type((await get_redis_manager()).is_configured, bool)
    await close_cache()


async def converse(db: AsyncSession, names: Iterable[str]) -> None:
    """Sessions, and what commits with them."""
    repository = SessionRepository(db)
    session = await repository.create(Session(user_id="ann", agent_id="support"))
    assert_type(session, Session)
    assert_type(session.status, SessionStatus)
    for name in names:
        await repository.add_message_to_session(session.id, {"role": "user", "content": name})
    invalidate_in(db, keys=["user:1"])


async def live() -> None:
    """What a service starts and ends."""
    settings = get_settings()
    assert_type(settings, Settings)
    setup_logging()
    logger.info("agent_service %s", agent_service.__version__)
    async with get_session() as db:
        assert_type(db, AsyncSession)
        await converse(db, ["hello"])
    async with SessionWriter(get_database()) as writer:
        await writer.append("an id", {"role": "user", "content": "hello"})
    assert_type(await cleanup_once(), CleanupCounts)
    await run_cleanup(interval=3600)
    await run_outbox()
    await close_database()
    reset_settings()
