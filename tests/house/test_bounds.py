"""What lives as long as the process does not grow with its traffic, neither in entries nor in bytes.

Each test does many operations with hostile sizes and compares what is still allocated with the bound that the table in
ARCHITECTURE.md names.
"""

import ast
import asyncio
import gc
import re
import tracemalloc
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

import agent_service
from agent_service.context.caching.cache_backed import CacheBackedContextStore
from agent_service.context.memory import InMemoryContextStore
from agent_service.core.errors import RedisUnavailableError
from agent_service.core.memo import Memo
from agent_service.core.singleflight import SingleFlight
from agent_service.core.values.known import KnownClasses
from agent_service.infrastructure.cache import InMemoryCache, cached
from agent_service.infrastructure.cache.loads.failures import Failures
from agent_service.infrastructure.cache.redis.entries import EntryFormat
from agent_service.infrastructure.cache.table import Entry, MemoryStore
from agent_service.infrastructure.cache.values import ValueCodec
from agent_service.infrastructure.database.naming.names import TableNames
from agent_service.infrastructure.redis.client import RedisClient
from agent_service.infrastructure.redis.former_names import FormerNames
from agent_service.testing.clock import FakeClock

MIB = 1 << 20

pytestmark = pytest.mark.usefixtures("little_garbage")


async def kept_by(work: Callable[[], Awaitable[object]]) -> int:
    """Return the bytes that are still allocated after some work and were not before it."""
    tracemalloc.start()
    try:
        await work()
        gc.collect()
        return tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()


async def test_a_memo_is_bounded_in_entries_and_in_bytes():
    few, small = Memo[int, int](10), Memo[str, str](10_000, 1 << 16)
    for number in range(1000):
        few.keep(number, number, 8)
        small.keep(f"{number}", "x" * 50, 60)
        small.keep(f"large {number}", "x" * 100, 100)

    assert len(few.known) <= 10
    assert 100 < len(small.known) <= (1 << 16) // 60
    assert not any(key.startswith("large") for key in small.known)


async def test_writing_one_key_with_a_ttl_does_not_pile_up_deadlines_in_a_context_store():
    store = InMemoryContextStore(ttl=300, clock=FakeClock())

    async def write() -> None:
        for _ in range(500):
            await store.set("a", {})
            await store.update("b", {"n": 1})
            await store.set("c", {})
            await store.delete("c")

    await store.set("kept", {})

    assert await kept_by(write) < 0.05 * MIB
    assert len(store._deadlines) < 200
    assert sorted(await store.list_keys()) == ["a", "b", "kept"]


async def test_what_was_written_before_deadlines_were_sorted_anew_still_expires():
    clock = FakeClock()
    store = InMemoryContextStore(clock=clock)
    await store.set("early", {}, ttl=10)
    await store.set("for ever", {})
    for _ in range(1000):
        await store.set("late", {}, ttl=100)
    clock.advance(50)

    assert sorted(await store.list_keys()) == ["for ever", "late"]
    clock.advance(60)
    assert await store.list_keys() == ["for ever"]


async def test_calls_with_large_arguments_are_not_remembered():
    calls = 0

    @cached(ttl=300, key_prefix="large", cache=InMemoryCache(10))
    async def load(text: str, number: int = 0) -> int:
        nonlocal calls
        calls += 1
        return number

    async def call() -> None:
        for number in range(200):
            await load(f"{number}" + "x" * 100_000)
            await load("small", 10 ** (10_000 + number))

    assert await kept_by(call) < 0.5 * MIB
    assert await load("small", 10**10_199) == 10**10_199
    assert calls == 400  # the last ten are hits all the same


async def test_what_is_remembered_of_calls_is_bounded_in_bytes():
    @cached(ttl=300, key_prefix="many", cache=InMemoryCache(10_000))
    async def load(text: str) -> int:
        return 1

    async def call() -> None:
        for number in range(2400):
            await load(f"{number:04}" + "x" * 3900)

    assert await kept_by(call) < 9 * MIB  # two memos of 4 MiB, and 2400 entries


async def test_rendered_keys_and_tags_of_calls_count():
    @cached(ttl=300, key="{text}", tags=["{text}"], cache=InMemoryCache(10))
    async def load(text: str) -> int:
        return 1

    async def call() -> None:
        for number in range(250):
            await load(f"{number:04}" + "x" * 7000)

    assert await kept_by(call) < 1 * MIB


async def test_dead_entries_keep_no_keys():
    store = MemoryStore(1)

    async def write() -> None:
        for number in range(60):
            store.put(Entry(f"{number}" + "x" * 100_000, 1, expires=300 + store.monotonic()))

    assert await kept_by(write) < 0.5 * MIB
    assert len(store._due) > 10


async def test_sections_of_tokens_are_bounded_in_bytes():
    format_ = EntryFormat(ValueCodec())

    async def read() -> None:
        for number in range(4000):
            format_.read_expected(b"", (f"{number}" + "x" * 8000,), (b"t" * 9, b"u" * 9))
            format_.read_expected(b"", ("tag",), (b"%d" % number, b"u" * 255))
            format_.read_expected(b"", (f"{number}" + "x" * 1500,), (b"t" * 9, b"u" * 9))

    assert await kept_by(read) < 5 * MIB


async def test_statements_with_many_values_are_not_remembered():
    names = TableNames("s", "p_")

    async def render() -> None:
        for number in range(60):
            values = ", ".join(f":id_{each}" for each in range(2000 + number))
            names.render(f"SELECT 1 FROM agent_service_sessions WHERE id IN ({values})")

    assert await kept_by(render) < 1 * MIB


async def test_failures_are_bounded_in_bytes_and_leave_when_they_are_over():
    clock = FakeClock()
    failures = Failures(clock.monotonic)

    async def fail() -> None:
        for number in range(400):
            failures.remember(f"large {number}", ValueError("x" * 100_000 + str(number)), 60)

    assert await kept_by(fail) < 18 * MIB
    assert failures.recent("large 399") is not None
    for number in range(1000):
        clock.advance(1)
        failures.remember(f"{number}", ValueError(), 10)
    clock.advance(60)
    failures.remember("last", ValueError(), 10)
    assert len(failures) == 1
    failures.forget(["last"])
    assert failures._bytes == 0


async def test_names_of_classes_in_hostile_bytes_are_bounded_in_bytes():
    known = KnownClasses(int)

    async def resolve() -> None:
        for number in range(400):
            known.resolve([[f"{number}" + "x" * 100_000, "shape"]])

    assert await kept_by(resolve) < 1 * MIB


def test_no_function_remembers_without_a_bound():
    """functools.cache keeps every argument for ever: classes that a service makes as it runs, names of its users."""
    endless = {"cache", "functools.cache", "lru_cache(None)", "functools.lru_cache(None)"}
    unbounded = [
        f"{path}:{node.lineno}"
        for path in Path(agent_service.__file__).parent.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and endless & {ast.unparse(each).replace("maxsize=", "") for each in node.decorator_list}
    ]

    assert unbounded == []


KINDS = {
    "set",
    "dict",
    "list",
    "deque",
    "Counter",
    "OrderedDict",
    "WeakKeyDictionary",
    "WeakValueDictionary",
    "WeakSet",
    "LoopRegistry",
}


def keeps_something(node: ast.stmt) -> bool:
    """Whether a statement of a module or class makes something that begins empty and lives on."""
    if isinstance(node, ast.FunctionDef):
        return any("lru_cache" in ast.unparse(each) for each in node.decorator_list)
    made = node.value if isinstance(node, ast.Assign | ast.AnnAssign) else None
    if isinstance(made, ast.Call):
        name = ast.unparse(made.func).partition("[")[0]
        return name.startswith(("Memo", "lru_cache")) or (name in KINDS and not made.args)
    # A constant is a Mapping.
    annotation = ast.unparse(node.annotation) if isinstance(node, ast.AnnAssign) else ""
    empty = (isinstance(made, ast.Dict) and not made.keys) or (isinstance(made, ast.List) and not made.elts)
    return empty and "Mapping" not in annotation


def test_what_modules_keep_stands_in_the_table_of_bounds():
    root = Path(agent_service.__file__).parent
    page = (root.parent / "ARCHITECTURE.md").read_text()
    table = page[page.index("## What a process keeps") : page.index("## Guarantees that tests hold up")]
    named = {Path(each) for each in re.findall(r"`([a-z_/]+\.py)`", table)}
    named |= {Path("infrastructure") / each for each in named}

    keeping = {
        path.relative_to(root)
        for path in root.rglob("*.py")
        for node in ast.parse(path.read_text()).body
        for each in ([*node.body] if isinstance(node, ast.ClassDef) else [node])
        if keeps_something(each)
    }
    assert len(keeping) > 20
    assert {str(each) for each in keeping - named} == set()


async def test_prefixes_of_one_client_are_bounded():
    client = RedisClient("redis://localhost:1/0")
    for number in range(3000):
        FormerNames.of(client, b"%d" % number, "*")

    assert len(FormerNames._known[client]) <= 1000


async def test_keys_that_a_cache_may_hold_wrongly_are_bounded_in_bytes():
    class Down(InMemoryContextStore):
        async def delete_many(self, keys: object) -> int:
            raise RedisUnavailableError("down")

    store = CacheBackedContextStore(InMemoryContextStore(), Down())

    async def write() -> None:
        for number in range(400):
            await store.delete(f"{number}" + "x" * 100_000)

    assert await kept_by(write) < 18 * MIB
    guard = store._guard
    guard.clean(list(guard.dirty))
    assert guard._dirty_bytes == 0


async def test_loads_that_wait_for_one_another_are_looked_at_once_each():
    """A diamond on a diamond: each level has two loads, and both wait for both of the next level."""
    flights, levels = SingleFlight(), 24

    class Lease:
        broken = False

    async def load(level: int, side: int) -> int:
        async def inner(_lease: object) -> int:
            if level == levels:
                return 1
            return sum(await asyncio.gather(load(level + 1, 0), load(level + 1, 1)))

        return await flights.run(f"{level}/{side}", inner, Lease)

    async with asyncio.timeout(60):  # milliseconds; without the visited set, days
        total = await load(0, 0)

    assert total == 2**levels
