"""Any sequence of calls, of two savers at once, ends as with LangGraph's saver in memory: a state machine."""

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test
from langgraph.checkpoint.base.id import uuid6

from agent_service.core.errors import SessionConflictError
from agent_service.infrastructure.database.engine.manager import DatabaseManager
from agent_service.integrations.langgraph.saver import AgentServiceSaver
from tests.integrations.langgraph.model import COUNTERS, Model, sorted_tuples
from tests.support.depth import examples

THREADS = st.sampled_from(["one", "two"])
NAMESPACES = st.sampled_from(["", "", "", "sub:1"])
VALUES = st.sampled_from([None, "text", 7, ["a", {"b": "ü"}], b"\x00\xff", "é\u0000"])
CHANNELS = ("messages", "state", "log")
WRITES = st.lists(
    st.tuples(st.sampled_from([*CHANNELS, "__error__", "__interrupt__", "__resume__", "__pregel_tasks"]), VALUES),
    min_size=1,
    max_size=4,
)
RUNS = st.sampled_from([None, "run 1", "run 2"])
EITHER = st.integers(0, 1)


class Savers(RuleBasedStateMachine):
    """Two savers on one database against one in memory."""

    savers: tuple[AgentServiceSaver, AgentServiceSaver]

    @initialize()
    def begin(self) -> None:
        # A tenant of its own is a database of its own for all that follows.
        tenant = str(uuid4())
        self.real = [each.for_tenant(tenant) for each in self.savers]
        self.model = Model()
        self.ids: list[str] = [str(uuid6(clock_seq=0))]
        self.puts: list[Any] = []

    @rule(
        thread=THREADS,
        namespace=NAMESPACES,
        parent=st.integers(0, 2),
        changed=st.sets(st.sampled_from(CHANNELS)),
        values=st.lists(VALUES, min_size=3, max_size=3),
        snapshot=st.booleans(),
        run=RUNS,
        either=EITHER,
    )
    def put(
        self,
        thread: str,
        namespace: str,
        parent: int,
        changed: set[str],
        values: Any,
        snapshot: bool,
        run: Any,
        either: int,
    ) -> None:
        before = self.model.get_tuple(config(thread, namespace)) if parent else None
        versions: dict[str, Any] = dict(before.checkpoint["channel_versions"]) if before else {}
        new = {name: self.real[0].get_next_version(versions.get(name), None) for name in changed}
        kept = dict(before.checkpoint["channel_values"]) if before else {}
        kept |= {name: value for name, value in zip(CHANNELS, values, strict=True) if name in changed}
        metadata: dict[str, Any] = {"source": "loop", "step": len(self.ids), "run_id": run, "odd": values[0]}
        if "log" in versions or "log" in new:
            if not snapshot:
                kept.pop("log", None)
                metadata[COUNTERS] = {"log": [1, 1]}
            elif "log" in new:
                kept["log"] = values
        checkpoint: dict[str, Any] = {
            "v": 4,
            "id": str(uuid6(clock_seq=len(self.ids))),
            "ts": "2026-12-01T12:00:00+00:00",
            "channel_values": kept,
            "channel_versions": {**versions, **new},
            "versions_seen": {"node": versions},
            "updated_channels": sorted(new),
        }
        given = config(thread, namespace, before.config["configurable"]["checkpoint_id"] if before else None)
        self.ids.append(checkpoint["id"])
        self.puts.append((given, checkpoint, metadata, new))
        self._put(either, *self.puts[-1])

    @precondition(lambda self: self.puts)
    @rule(which=st.integers(0, 3), either=EITHER)
    def put_again(self, which: int, either: int) -> None:
        given, *rest = self.puts[-1 - which % len(self.puts)]
        if given["configurable"]["thread_id"] in self.model.threads():
            self._put(either, given, *rest)

    @rule(
        thread=THREADS,
        namespace=NAMESPACES,
        which=st.integers(0, 3),
        task=st.sampled_from(["task b", "task a"]),
        path=st.sampled_from(["", "~2, x", "~1, y"]),
        writes=WRITES,
        either=EITHER,
    )
    def put_writes(
        self, thread: str, namespace: str, which: int, task: str, path: str, writes: Any, either: int
    ) -> None:
        stored = sorted(self.model.storage.get(thread, {}).get(namespace, {}))
        known = stored or self.ids
        given = config(thread, namespace, self.ids[-1] if which == 3 else known[-1 - which % len(known)])
        self.written = (given, task, path)
        for saver in (self.model, self.real[either]):
            saver.put_writes(given, writes, task, path)

    @precondition(lambda self: hasattr(self, "written"))
    @rule(writes=WRITES, either=EITHER)
    def put_other_writes(self, writes: Any, either: int) -> None:
        given, task, path = self.written
        for saver in (self.model, self.real[either]):
            saver.put_writes(given, writes, task, path)

    @rule(thread=THREADS, namespace=NAMESPACES, which=st.none() | st.integers(0, 5), either=EITHER)
    def get(self, thread: str, namespace: str, which: int | None, either: int) -> None:
        found = None if which is None else self.ids[-1 - which % len(self.ids)]
        given = config(thread, namespace, found)

        assert self.real[either].get_tuple(given) == self.model.get_tuple(given)
        history = self.real[either].get_delta_channel_history(config=given, channels=["log", "state"])
        assert history == self.model.get_delta_channel_history(config=given, channels=["log", "state"])

    @rule(
        thread=st.none() | THREADS,
        namespace=st.none() | NAMESPACES,
        conditions=st.dictionaries(st.sampled_from(["source", "run_id", "odd", "step"]), VALUES | RUNS, max_size=2),
        which=st.none() | st.integers(0, 5),
        limit=st.none() | st.integers(0, 3),
        either=EITHER,
    )
    def list(self, thread: Any, namespace: Any, conditions: Any, which: Any, limit: Any, either: int) -> None:
        given = None if thread is None else config(thread, namespace)
        before = None if which is None else config("any", "", self.ids[-1 - which % len(self.ids)])
        whole = sorted_tuples(self.model.list(given, filter=conditions, before=before))

        found = list(self.real[either].list(given, filter=conditions, before=before, limit=limit))

        ids = [each.config["configurable"]["checkpoint_id"] for each in found]
        assert ids == sorted(ids, reverse=True)
        assert len(found) == (len(whole) if limit is None else min(limit, len(whole)))
        assert all(each in whole for each in found)
        assert ids == sorted((each.config["configurable"]["checkpoint_id"] for each in whole), reverse=True)[: len(ids)]

    @rule(source=THREADS, destination=THREADS, either=EITHER)
    def copy(self, source: str, destination: str, either: int) -> None:
        saver = self.real[either]
        if destination in self.model.threads() or any(key[0] == destination for key in self.model.writes):
            saver.prune([destination], strategy="delete")
            self.model.delete_thread(destination)
        if source != destination:
            saver.copy_thread(source, destination)
            self.model.copy_thread(source, destination)

    @rule(thread=THREADS, strategy=st.sampled_from(["keep_latest", "keep_latest", "delete"]), either=EITHER)
    def prune(self, thread: str, strategy: str, either: int) -> None:
        for saver in (self.model, self.real[either]):
            saver.prune([thread], strategy=strategy)

    @rule(runs=st.sets(st.sampled_from(["run 1", "run 2"]), min_size=1), either=EITHER)
    def delete_for_runs(self, runs: set[str], either: int) -> None:
        if any(self.model.needs(runs, thread) for thread in self.model.threads()):
            with pytest.raises(SessionConflictError):
                self.real[either].delete_for_runs(sorted(runs))
            for thread in self.model.threads():  # Some of the threads may have lost their runs.
                self.real[either].delete_thread(thread)
                self.model.delete_thread(thread)
            return
        had = self.model.threads()
        self.real[either].delete_for_runs(sorted(runs))
        self.model.delete_for_runs(runs)
        for emptied in had - self.model.threads():
            self.model.delete_thread(emptied)

    def _put(self, either: int, *arguments: Any) -> None:
        results = [saver.put(*arguments) for saver in (self.model, self.real[either])]
        assert results[0] == results[1]

    def teardown(self) -> None:
        if hasattr(self, "real"):
            found = sorted_tuples(self.real[0].list(None))
            assert found == sorted_tuples(self.model.list(None))


def config(thread: str, namespace: str | None, checkpoint_id: str | None = None) -> Any:
    """Return a config."""
    named = {} if namespace is None else {"checkpoint_ns": namespace}
    chosen = {} if checkpoint_id is None else {"checkpoint_id": checkpoint_id}
    return {"configurable": {"thread_id": thread, **named, **chosen}}


@pytest.fixture
def savers(database_url: str) -> Iterator[tuple[AgentServiceSaver, AgentServiceSaver]]:
    """Two savers with event loops of their own, which know nothing of each other."""
    with ExitStack() as stack:
        yield tuple(stack.enter_context(AgentServiceSaver(DatabaseManager(database_url))) for _ in range(2))  # type: ignore[misc]


def test_every_sequence_of_calls_ends_as_in_memory(savers: tuple[AgentServiceSaver, AgentServiceSaver]) -> None:
    machine = type("Machine", (Savers,), {"savers": savers})

    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples(25, 300),
            stateful_step_count=50,
            deadline=None,
            phases=[Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink],
            suppress_health_check=list(HealthCheck),
        ),
    )
