"""Any history of calls gives what it gives on the SDK's own session in memory, whichever connection makes them."""

import asyncio
from collections.abc import Awaitable
from typing import Any

from agents import SQLiteSession
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from agent_service.infrastructure.database.append.writer import SessionWriter
from agent_service.infrastructure.database.engine import DatabaseManager
from agent_service.integrations.openai_agents import DatabaseSession
from tests.integrations.openai_agents.samples import call, output, reasoning, reply, said
from tests.support.depth import examples

LIMITS = st.none() | st.integers(1, 12)


class Home:
    """A loop with two connections to one database, and a writer on the second; it outlives many histories."""

    def __init__(self, url: str) -> None:
        self.runner = asyncio.Runner()
        self.histories = 0
        self.databases = [DatabaseManager(url), DatabaseManager(url)]
        self.writer = SessionWriter(self.databases[1])
        self.run(self.writer.__aenter__())

    def run(self, work: Awaitable[Any]) -> Any:
        async def wait() -> Any:
            return await work

        return self.runner.run(wait())

    def close(self) -> None:
        self.run(self.writer.close())
        for database in self.databases:
            self.run(database.close())
        self.runner.close()


class SessionMachine(RuleBasedStateMachine):
    """One conversation and its forks, each beside an SQLiteSession."""

    home: Home

    def __init__(self) -> None:
        super().__init__()
        self.pairs: list[tuple[str, SQLiteSession]] = []
        self.numbers = 0
        self.last: tuple[int, list[Any]] | None = None

    @initialize()
    def begin(self) -> None:
        self.home.histories += 1
        self.pairs.append((f"{self.home.histories}", SQLiteSession("theirs")))

    def teardown(self) -> None:
        for _, theirs in self.pairs:
            theirs.close()

    def ours(self, which: int, way: int) -> DatabaseSession:
        """Return a new object, as another request or process would have: on one connection, or on the other."""
        name, _ = self.pairs[which % len(self.pairs)]
        writer = self.home.writer if way % 3 == 2 else None
        return DatabaseSession(name, user_id="ada", database=self.home.databases[min(way % 3, 1)], writer=writer)

    def theirs(self, which: int) -> SQLiteSession:
        return self.pairs[which % len(self.pairs)][1]

    def batch(self, kinds: list[int]) -> list[Any]:
        items: list[Any] = []
        for kind in kinds:
            self.numbers += 1
            name = f"{self.numbers}"
            items += [
                [said("the same each time")],
                [reply(name, f"msg_{name}")],
                [reasoning(f"rs_{name}"), call(f"c{name}", f"fc_{name}"), output(f"c{name}")],
                [call(f"c{name}", "__fake_id__"), output(f"c{name}")],
            ][kind]
        return items

    @rule(which=st.integers(0, 3), way=st.integers(0, 2), kinds=st.lists(st.integers(0, 3), max_size=4))
    def add(self, which: int, way: int, kinds: list[int]) -> None:
        items = self.batch(kinds)
        self.home.run(self.theirs(which).add_items(items))
        self.home.run(self.ours(which, way).add_items(items))
        self.last = which % len(self.pairs), items

    @rule(way=st.integers(0, 2))
    def repeat(self, way: int) -> None:
        """A retry of what has ids adds nothing while it is there."""
        if self.last is not None and self.last[1]:
            which, items = self.last
            if all(item.get("id", "").startswith(("msg_", "rs_", "fc_")) or "output" in item for item in items):
                self.home.run(self.ours(which, way).add_items(items))

    @rule(which=st.integers(0, 3), way=st.integers(0, 2))
    def pop(self, which: int, way: int) -> None:
        self.last = None
        popped = self.home.run(self.ours(which, way).pop_item())
        assert popped == self.home.run(self.theirs(which).pop_item())

    @rule(which=st.integers(0, 3), way=st.integers(0, 2))
    def clear(self, which: int, way: int) -> None:
        self.last = None
        self.home.run(self.ours(which, way).clear_session())
        self.home.run(self.theirs(which).clear_session())

    @rule(
        which=st.integers(0, 3), way=st.integers(0, 2), limit=st.integers(1, 8), start=st.integers(0, 8),
        kinds=st.lists(st.integers(0, 1), max_size=2), meanwhile=st.sampled_from(["", "", "add", "pop"]),
    )  # fmt: skip
    def compact(self, which: int, way: int, limit: int, start: int, kinds: list[int], meanwhile: str) -> None:
        self.last = None
        output, added = self.batch(kinds), self.batch([1])
        results = []
        for session, other in ((self.ours(which, way), self.ours(which, way + 1)), (self.theirs(which),) * 2):
            snapshot = self.home.run(session._get_compaction_snapshot(limit))
            if meanwhile == "add":
                self.home.run(other.add_items(added))
            elif meanwhile == "pop":
                self.home.run(other.pop_item())
            replaced = self.home.run(snapshot.replace_suffix(start, output))
            results.append((snapshot.items, snapshot.complete, replaced))
        assert results[0] == results[1]

    @rule(which=st.integers(0, 3), way=st.integers(0, 2), at=st.integers(0, 30))
    def fork(self, which: int, way: int, at: int) -> None:
        items = self.home.run(self.ours(which, way).read_items(limit=10_000))
        if not items or len(self.pairs) > 3:
            return
        at %= len(items)
        name = f"{self.pairs[0][0]}.{len(self.pairs)}"
        self.home.run(self.ours(which, way).fork(name, at=items[at].seq))
        copy = SQLiteSession("fork")
        self.home.run(copy.add_items([each.item for each in items[: at + 1]]))
        self.pairs.append((name, copy))

    @rule(which=st.integers(0, 3), way=st.integers(0, 2), limit=LIMITS)
    def read(self, which: int, way: int, limit: int | None) -> None:
        assert self.home.run(self.ours(which, way).get_items(limit)) == self.home.run(
            self.theirs(which).get_items(limit)
        )

    @invariant()
    def all_are_equal(self) -> None:
        for which, (_, theirs) in enumerate(self.pairs):
            assert self.home.run(self.ours(which, 0).get_items()) == self.home.run(theirs.get_items())


def test_any_history_of_calls_gives_what_the_sdks_own_session_gives(database_url: str) -> None:
    home = Home(database_url)
    machine = type("Machine", (SessionMachine,), {"home": home})
    try:
        run_state_machine_as_test(
            machine,
            settings=settings(
                max_examples=examples(6, 300),
                stateful_step_count=examples(12, 40),
                deadline=None,
                suppress_health_check=list(HealthCheck),
            ),
        )
    finally:
        home.close()
