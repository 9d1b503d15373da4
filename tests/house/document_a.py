"""The first document's examples, re-typed as they are written there: titles and code, in its order."""

EXAMPLES: dict[str, str] = {
    "basic cache usage": """
from agent_service.infrastructure.cache import get_cache

# Get cache instance
cache = await get_cache(namespace="users")

# Set value with TTL
await cache.set("user:123", {"name": "John"}, ttl=300)

# Get value
user = await cache.get("user:123")

# Delete value
await cache.delete("user:123")
""",
    "using cache decorators": """
from agent_service.infrastructure.cache import cached, cache_invalidate

# Cache function results
@cached(ttl=300, key_prefix="users")
async def get_user(user_id: str):
    # Expensive operation
    return await db.query_user(user_id)

# Invalidate cache on mutation
@cache_invalidate(key_pattern="users:get_user:*")
async def update_user(user_id: str, data: dict):
    await db.update_user(user_id, data)
""",
    "session repository": """
from agent_service.infrastructure.database.repositories import SessionRepository
from agent_service.infrastructure.database.models.session import Session, SessionStatus

async with get_session() as db:
    repo = SessionRepository(db)

    # Create session
    session = Session(
        user_id=user_id,
        agent_id="code_agent",
        title="Debug Python Script",
        status=SessionStatus.ACTIVE
    )
    session = await repo.create(session)

    # Add message
    await repo.add_message_to_session(
        session_id=session.id,
        message={
            "role": "user",
            "content": "Help me debug this code"
        }
    )

    # Get user sessions
    sessions = await repo.get_user_sessions(user_id)

    # Get statistics
    stats = await repo.get_session_stats(user_id)
    print(f"Total messages: {stats.total_messages}")
""",
    "get": """
value = await cache.get("my_key")
""",
    "set": """
await cache.set("my_key", {"data": "value"}, ttl=300)
""",
    "delete": """
deleted = await cache.delete("my_key")
""",
    "exists": """
exists = await cache.exists("my_key")
""",
    "increment": """
count = await cache.increment("counter", amount=1)
""",
    "expire": """
await cache.expire("my_key", ttl=60)
""",
    "cached": """
@cached(ttl=300, key_prefix="users")
async def get_user(user_id: str):
    return await fetch_user(user_id)
""",
    "cache_invalidate": """
@cache_invalidate(key_pattern="users:*")
async def update_user(user_id: str, data: dict):
    await save_user(user_id, data)
""",
    "get_user_sessions": """
sessions = await repo.get_user_sessions(user_id, active_only=True)
""",
    "get_session_with_messages": """
session = await repo.get_session_with_messages(session_id)
print(f"Messages: {len(session.messages)}")
""",
    "add_message_to_session": """
await repo.add_message_to_session(
    session_id=session.id,
    message={
        "role": "user",
        "content": "Hello!",
        "metadata": {"source": "web"}
    }
)
""",
    "update_session_context": """
await repo.update_session_context(
    session_id=session.id,
    context={"language": "python", "mode": "debug"}
)
""",
    "cleanup_expired_sessions": """
# Run periodically (e.g., via cron)
cleaned = await repo.cleanup_expired_sessions()
""",
    "get_session_stats": """
stats = await repo.get_session_stats(user_id)
print(f"Total sessions: {stats.total_sessions}")
print(f"Active sessions: {stats.active_sessions}")
print(f"Total messages: {stats.total_messages}")
print(f"Hit rate: {stats.avg_messages_per_session:.1f}")
""",
    "get_paginated_user_sessions": """
result = await repo.get_paginated_user_sessions(
    user_id=user_id,
    page=1,
    page_size=10
)
print(f"Page {result.page} of {result.total_pages}")
""",
    "search_sessions": """
sessions = await repo.search_sessions(user_id, "python")
""",
    "bulk_update_session_status": """
count = await repo.bulk_update_session_status(
    session_ids=[id1, id2, id3],
    status=SessionStatus.COMPLETED
)
""",
    "scan_keys": """
manager = await get_redis_manager()
keys = await manager.scan_keys("users:*")
""",
    "mget": """
values = await manager.mget(["key1", "key2", "key3"])
""",
    "mset": """
await manager.mset({"key1": "value1", "key2": "value2"})
""",
    "delete_by_pattern": """
deleted = await manager.delete_by_pattern("temp:*")
""",
    "get_metrics": """
metrics = manager.get_metrics()
print(f"Hit rate: {metrics['hit_rate']}%")
""",
    "time-based expiration": """
# Cache for 5 minutes
@cached(ttl=300)
async def get_data():
    return await fetch_data()
""",
    "namespace isolation": """
user_cache = await get_cache(namespace="users")
session_cache = await get_cache(namespace="sessions")
""",
    "pattern-based invalidation": """
@cache_invalidate(key_pattern="users:get_user:*")
async def update_user_profile(user_id: str):
    # All cached user queries will be invalidated
    pass
""",
    "selective caching": """
@cached(ttl=300, cache_none=False)  # Don't cache None results
async def get_optional_data(key: str):
    return await fetch_data_or_none(key)
""",
    "namespace your keys": """
cache = await get_cache(namespace="users")
""",
    "handle cache misses gracefully": """
@cached(ttl=300)
async def get_user(user_id: str):
    # Cache decorator handles failures automatically
    # Function executes normally on cache miss
    return await db.query_user(user_id)
""",
    "invalidate on mutations": """
@cache_invalidate(key_pattern="users:*")
async def update_user(user_id: str, data: dict):
    await db.update_user(user_id, data)
""",
    "monitor cache performance": """
manager = await get_redis_manager()
hit_rate = manager.get_hit_rate(namespace="users")
if hit_rate < 50:
    # Consider increasing TTL or caching more data
    pass
""",
    "clean up expired sessions": """
# In a scheduled task (cron, celery, etc.)
async def cleanup_task():
    async with get_session() as db:
        repo = SessionRepository(db)
        await repo.cleanup_expired_sessions()
        await db.commit()
""",
    "cache metrics": """
manager = await get_redis_manager()
metrics = manager.get_metrics()
print(f"Hits: {metrics['metrics']['default:hits']}")
print(f"Misses: {metrics['metrics']['default:misses']}")
print(f"Hit rate: {manager.get_hit_rate():.2f}%")
""",
    "session analytics": """
stats = await repo.get_session_stats(user_id)
print(f"Total sessions: {stats.total_sessions}")
print(f"Active sessions: {stats.active_sessions}")
print(f"Avg messages/session: {stats.avg_messages_per_session}")
""",
    "redis connection issues": """
# This works even if Redis is down
cache = await get_cache()
await cache.set("key", "value")
""",
    "serialize manually": """
# Good: Simple types
await cache.set("key", {"name": "John", "age": 30})

# Bad: Complex objects
# await cache.set("key", some_complex_object)

# Solution: Serialize manually
await cache.set("key", some_complex_object.to_dict())
""",
    "batch operations": """
# Instead of multiple get calls
values = await manager.mget(["key1", "key2", "key3"])

# Instead of multiple set calls
await manager.mset({"key1": "value1", "key2": "value2"})
""",
    "pagination": """
result = await repo.get_paginated_user_sessions(
    user_id=user_id,
    page=1,
    page_size=20
)
""",
}

SETTINGS = """
# Redis
REDIS_URL=redis://localhost:6379/0

# Cache Settings
CACHE_DEFAULT_TTL=300
CACHE_KEY_PREFIX=agent_service

# Session Settings
SESSION_MAX_MESSAGES=100
SESSION_EXPIRY_HOURS=24
"""
