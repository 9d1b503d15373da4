"""Every feature of agent_service in one program. Run it: ``python USAGE_EXAMPLES.py``

Without any setting the cache is in memory and the sessions are in ./agent_service.db; with REDIS_URL and DATABASE_URL
set, in the environment or in .env, the same program uses Redis and PostgreSQL. REDIS_URL=embedded:// starts a private
Redis. It can be run any number of times: it
uses namespaces and a user of its own, and removes what it made.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import uuid4

from agent_service.infrastructure.cache import (
    NEVER,
    cache_invalidate,
    cached,
    close_cache,
    get_cache,
    get_redis_manager,
)
from agent_service.infrastructure.database import close_database, get_session
from agent_service.infrastructure.database.models.session import Session, SessionStatus
from agent_service.infrastructure.database.repositories import SessionRepository
from agent_service.infrastructure.outbox import drain_outbox, invalidate_in
from agent_service.runtime import AgentRuntime, AsyncToolMixin, GlobalSymphonyConfig
from agent_service.tenants import (
    RedisBatch,
    RedisSharedState,
    RedisTrigger,
    RedisUser,
    Trigger,
    TriggerRunner,
    on_trigger,
    shared_state_scope,
)

USERS = "examples-users"
TENANT = "examples"
NAMESPACES = (USERS, "examples-temp", "examples-reports")


async def cache_basics() -> None:
    """Store, read, count and expire values. A TTL is seconds, a timedelta, or NEVER."""
    cache = await get_cache(namespace=USERS)

    await cache.set("user:123", {"name": "John"}, ttl=300)
    print("get:", await cache.get("user:123"))
    print("a missing key:", await cache.get("user:456"), "- or a default:", await cache.get("user:456", "nobody"))
    print("exists:", await cache.exists("user:123"), "- expire in a minute:", await cache.expire("user:123", ttl=60))
    print("delete:", await cache.delete("user:123"), "- and again:", await cache.delete("user:123"))

    await cache.set("visits", 41, ttl=NEVER)
    print("increment:", await cache.increment("visits"), "- ttl:", repr(await cache.ttl("visits")))

    # Values come back as they were stored, types included.
    bill = {"due": datetime(2026, 1, 31, tzinfo=UTC), "total": Decimal("19.90"), "tags": {"paid", "sent"}}
    await cache.set("bill", bill, ttl=timedelta(minutes=5))
    print("lossless:", await cache.get("bill") == bill)


async def cache_in_bulk() -> None:
    """Many keys in one round trip, and keys by pattern."""
    cache = await get_cache(namespace="examples-temp")

    await cache.set_many({"report:1": "draft", "report:2": "final", "note": "x"}, ttl=60)
    print("get_many:", sorted((await cache.get_many(["report:1", "report:2", "report:3"])).items()))
    print("scan:", sorted([key async for key in cache.scan("report:*")]))
    print("delete_pattern:", await cache.delete_pattern("report:*"), "entries")
    await cache.clear()


@dataclass
class User:
    """What the cached function below returns, from the cache as well as from the source."""

    id: str
    name: str


DIRECTORY = {"7": User("7", "Ada"), "8": User("8", "Grace")}
asked: list[str] = []


@cached(ttl=300, key_prefix="users", namespace=USERS)
async def get_user(user_id: str) -> User | None:
    """Return a user, slowly, like an expensive query. A result of None is not cached unless cache_none=True."""
    asked.append(user_id)
    await asyncio.sleep(0.01)
    return DIRECTORY.get(user_id)


@cache_invalidate(key_pattern="users:get_user:*", namespace=USERS)
async def rename_user(user_id: str, name: str) -> None:
    """Change the source; the cached users are invalidated once it has returned."""
    DIRECTORY[user_id] = User(user_id, name)


async def cached_functions() -> None:
    """One call for all concurrent callers, typed results, invalidation after a change."""
    asked.clear()
    users = await asyncio.gather(*(get_user("7") for _ in range(100)))
    print("100 callers at once:", users[0], "- queries:", len(asked))

    await rename_user("7", "Ada Lovelace")
    print("after an update:", await get_user("7"), "- queries:", len(asked))
    print("nobody:", await get_user("9"), await get_user("9"), "- None is not cached, queries:", len(asked))

    print("one entry:", get_user.cache_key("7"), "- removed:", await get_user.invalidate("7"))
    print("refresh:", await get_user.refresh("7"), "- info:", get_user.cache_info())


async def loading() -> None:
    """Return what is cached, or load it: the same single flight without a decorator, and staleness by choice."""
    cache = await get_cache(namespace="examples-reports")

    async def build_report() -> dict[str, int]:
        return {"rows": 1200}

    async def fail() -> dict[str, int]:
        raise ConnectionError("the source is down")

    print("get_or_load:", await cache.get_or_load("monthly", build_report, ttl=600))

    await cache.get_or_load("hourly", build_report, ttl=0.05, stale_for=600)
    await asyncio.sleep(0.06)
    found = await cache.get_or_load("hourly", fail, ttl=0.05, stale_for=600, info=True)
    print("stale, because of an", found.stale_reason, "-", found.value)

    async def build_reports(names: list[str]) -> dict[str, dict[str, int]]:
        return {name: {"rows": len(name)} for name in names}

    print("many at once:", await cache.get_or_load_many(["monthly", "weekly"], build_reports))


async def tags() -> None:
    """Invalidate all entries about one thing, at a cost that does not grow with their number."""
    cache = await get_cache(namespace="examples-reports")

    await cache.set("orders:7", ["tea"], tags=["user:7"])
    await cache.set("basket:7", ["cup"], tags=["user:7"])
    await cache.set("orders:8", ["pot"], tags=["user:8"])
    await cache.invalidate_tags(["user:7"])
    print("after invalidate_tags:", await cache.get_many(["orders:7", "basket:7", "orders:8"]))


async def invalidate_with_the_transaction() -> None:
    """Commit a change and its invalidation together, so that no crash can come between them."""
    cache = await get_cache(namespace=USERS)
    await cache.set("user:7", "old")
    async with get_session() as db:
        # Here the service writes what changed, in the same transaction.
        invalidate_in(db, keys=["user:7"], namespace=USERS)
    # In production: asyncio.create_task(run_outbox()) in each process.
    await drain_outbox()
    print("after the commit:", await cache.get("user:7"))


async def redis_manager() -> None:
    """Use Redis itself: raw strings, keys of all namespaces, health, metrics."""
    manager = await get_redis_manager()
    health = await manager.health_check()
    if health["ok"]:
        await manager.mset({"examples-temp:key1": "value1", "examples-temp:key2": "value2"})
        print("mget:", await manager.mget(["examples-temp:key1", "examples-temp:key2", "examples-temp:key3"]))
        print("scan_keys:", sorted(await manager.scan_keys("examples-temp:*")))
        print("delete_by_pattern:", await manager.delete_by_pattern("examples-temp:*"))
    else:
        print("Redis is not there: the cache works in memory, mget and similar calls would raise RedisUnavailableError")

    metrics = manager.get_metrics()
    print(f"hit rate: {metrics['hit_rate']}%, hits of the default namespace: {metrics['metrics']['default:hits']}")
    print(f"hit rate of {USERS}: {manager.get_hit_rate(namespace=USERS):.2f}%")


async def tenants() -> None:
    """Records of a tenant's users: typed fields, atomic writes, no other tenant's data."""
    user = RedisUser(tenant=TENANT, user_id="ann")
    await user.upsert({"name": "Ann", "score": 100})
    await user.increment_field("score", 10)
    print("a record:", await user.get(), "- of another tenant:", await RedisUser(tenant="other", user_id="ann").get())
    await user.delete()


fired = asyncio.Event()


@on_trigger("examples_reminder")
async def send_reminder(trigger: Trigger) -> None:
    """Run when the trigger is due, by one worker at a time, until it has ended well."""
    print("fired:", trigger.action, "for", trigger.identifier, "- attempt", trigger.attempt)
    fired.set()


async def triggers() -> None:
    """Do something later, even if this process has ended by then."""
    fired.clear()
    await RedisTrigger(tenant=TENANT).set("examples_reminder", "user_123", ttl_seconds=0.05)
    async with TriggerRunner(tenants=[TENANT]):  # one in each worker process
        await fired.wait()


async def batches() -> None:
    """Share work between many workers; what a worker does not acknowledge goes back."""
    batch = RedisBatch(tenant=TENANT)
    for number in range(3):
        await batch.enqueue("mails", "daily", "send", {"to": f"user_{number}"})
    claims = await batch.claim("mails", "daily", "send", count=10, visibility=30.0)
    print("claimed:", [claim.payload["to"] for claim in claims], "- acknowledged:", await batch.ack(claims))
    print("the tenant has no work left:", await RedisBatch.remove_from_pending("mails", TENANT))


class GreetingTool(AsyncToolMixin):
    """A synchronous tool, in a thread, over asynchronous state."""

    def run(self) -> str:
        """Remember the call and greet."""
        self.set_state_field("tool_history", "last_tool", "greeting")
        return f"hello {self.shared_state.user_id}"


async def tools() -> None:
    """Run tools in threads that carry the caller's context, under a limit."""
    async with AgentRuntime(GlobalSymphonyConfig(workers_tool=4)) as runtime:
        with shared_state_scope(tenant=TENANT, user_id="ann") as state:
            async with runtime.limiter:
                print("the tool:", await runtime.loop.run_in_executor(runtime.pool_tool, GreetingTool().run))
            print("what it stored:", await state.get("tool_history"))
        await RedisSharedState(tenant=TENANT, user_id="ann").clear_all_states()


async def session_storage() -> None:
    """A conversation from its first message to its statistics."""
    user_id = uuid4()
    async with get_session() as db:
        repo = SessionRepository(db)
        session = await repo.create(
            Session(
                user_id=user_id, agent_id="code_agent", title="Debug Python Script", status=SessionStatus.ACTIVE,
                metadata={"client": "web"},
            )
        )  # fmt: skip
        await repo.add_message_to_session(session.id, {"role": "user", "content": "Help me debug this code"})
        call: dict[str, Any] = {"id": "call_1", "name": "run", "arguments": '{"file": "app.py"}'}
        await repo.add_message_to_session(session.id, {"role": "assistant", "content": None, "tool_calls": [call]})
        result = {"role": "tool", "tool_call_id": "call_1", "content": "ZeroDivisionError on line 3"}
        stored = await repo.add_message_to_session(session.id, result, client_id="call_1:result")
        again = await repo.add_message_to_session(session.id, result, client_id="call_1:result")
        print("message", stored.seq, "- sent twice with one client_id, stored once:", again.seq == stored.seq)
        print("context:", await repo.update_session_context(session.id, {"language": "python", "mode": "debug"}))
    # Leaving the block committed; an exception would have rolled everything back.

    async with get_session() as db:
        repo = SessionRepository(db)
        loaded = await repo.get_session_with_messages(session.id)
        assert loaded is not None
        print("messages:", [f"{message.seq} {message['role']}" for message in loaded.messages])
        print("the last one:", (await repo.get_messages(session.id, limit=1))[0].content)
        print("its exact dict:", loaded.messages[2].to_dict() == result)
    await sessions_in_lists(user_id)


async def sessions_in_lists(user_id: Any) -> None:
    """Lists, pages, search, statistics, and many sessions at once."""
    async with get_session() as db:
        repo = SessionRepository(db)
        for number in range(1, 4):
            await repo.create(Session(user_id=user_id, agent_id="planner", title=f"Trip number {number}"))

        sessions = await repo.get_user_sessions(user_id, active_only=True)
        print("latest first:", [each.title for each in sessions])
        page = await repo.get_paginated_user_sessions(user_id=user_id, page=1, page_size=3)
        print(f"page {page.page} of {page.total_pages}, {page.total} sessions")
        first = await repo.get_user_sessions_page(user_id, limit=3)
        rest = await repo.get_user_sessions_page(user_id, limit=3, cursor=first.next_cursor)
        print("by cursor, at the same cost however deep:", len(first.items), "+", len(rest.items))
        found = await repo.search_sessions(user_id, "zerodivision")
        print("search in titles and messages:", [each.title for each in found])

        done = await repo.bulk_update_session_status([each.id for each in sessions[:3]], SessionStatus.COMPLETED)
        stats = await repo.get_session_stats(user_id)
        print(f"completed {done}; {stats.active_sessions} of {stats.total_sessions} sessions are active,")
        print(f"{stats.total_messages} messages, {stats.avg_messages_per_session:.1f} a session")

        # In production: asyncio.create_task(run_cleanup(interval=3600)), or agent-service cleanup from cron.
        print("expired and now completed:", await repo.cleanup_expired_sessions())
        for each in sessions:
            await repo.delete(each.id, hard=True)


async def run_all() -> None:
    """Run every example, remove what the cache still holds, and close what was opened."""
    examples: tuple[Callable[[], Awaitable[None]], ...] = (
        cache_basics, cache_in_bulk, cached_functions, loading, tags, redis_manager,
        session_storage, invalidate_with_the_transaction,
    )  # fmt: skip
    try:
        if (await (await get_redis_manager()).health_check())["ok"]:
            examples += (tenants, triggers, batches, tools)
        else:
            print(
                "Without Redis: no tenants, triggers, batches and tools. Set REDIS_URL, embedded:// for a private one."
            )
        for example in examples:
            print(f"\n# {(example.__doc__ or '').splitlines()[0]}")
            await example()
        for namespace in NAMESPACES:
            await (await get_cache(namespace)).delete_pattern("*")
    finally:
        await close_cache()
        await close_database()


def main() -> None:
    """Run the program."""
    asyncio.run(run_all())


if __name__ == "__main__":
    main()
