"""A store does what LangGraph's store in memory does, whatever is asked in whatever order.

Where the two differ on purpose, the machine asks for what both define:

- Without a query the one in memory shows what was put first, and ours what was updated last. So what is found is
  compared as a set, and pages by how much is on them.
- In memory a namespace stays listed when its last item was deleted, or as soon as it was read; the machine leaves one
  item in each namespace that it has touched.
- In memory a second put is a new creation. Ours keeps ``created_at``, which the machine does not compare.
"""

import asyncio
from typing import Any

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test
from langgraph.store.base import GetOp, ListNamespacesOp, MatchCondition, Op, PutOp, Result, SearchOp
from langgraph.store.memory import InMemoryStore

from agent_service.infrastructure.database.engine import DatabaseManager
from agent_service.integrations.langgraph import AgentServiceStore
from tests.support.depth import examples

LABELS = st.sampled_from(["a", "b", "a-b", "ab", "ä", "a\x01"])
NAMESPACES = st.lists(LABELS, min_size=1, max_size=3).map(tuple)
KEYS = st.sampled_from(["k", "l", "m"])
NUMBERS = st.integers(-2, 12)
DOCUMENTS = st.fixed_dictionaries(
    {"n": NUMBERS},
    optional={
        "s": st.sampled_from(["x", "y"]),
        "d": st.fixed_dictionaries({"n": NUMBERS}),
        "l": st.lists(NUMBERS, max_size=2),
    },
)
FILTERS = st.one_of(
    st.none(),
    st.fixed_dictionaries({"s": st.sampled_from(["x", "y", None])}),
    st.fixed_dictionaries(
        {"n": st.dictionaries(st.sampled_from(["$gt", "$gte", "$lt", "$lte", "$ne", "$eq"]), NUMBERS, min_size=1)}
    ),
    st.fixed_dictionaries({"d": st.fixed_dictionaries({"n": NUMBERS})}),
    st.fixed_dictionaries({"l": st.lists(NUMBERS, max_size=2)}),
)
PATHS = st.lists(LABELS | st.just("*"), min_size=1, max_size=2).map(tuple)
MATCHES = st.lists(st.builds(MatchCondition, st.sampled_from(["prefix", "suffix"]), PATHS), max_size=2).map(tuple)
OPS: st.SearchStrategy[Op] = st.one_of(
    st.tuples(NAMESPACES, KEYS).map(lambda each: GetOp(*each)),
    st.tuples(NAMESPACES, KEYS, DOCUMENTS | st.none()).map(lambda each: PutOp(*each)),
    st.tuples(NAMESPACES | st.just(()), FILTERS, st.integers(0, 20), st.integers(0, 2)).map(
        lambda each: SearchOp(*each)
    ),
    st.tuples(MATCHES, st.none() | st.integers(1, 3), st.integers(0, 20), st.integers(0, 2)).map(
        lambda each: ListNamespacesOp(*each)
    ),
)


def shown(op: Op, result: Result) -> Any:
    if isinstance(op, GetOp) and result is not None:
        return result.value  # type: ignore[union-attr]
    return result


@pytest.mark.parametrize("engine", ["sqlite", "postgres"])
def test_it_does_what_the_store_in_memory_does(engine: str, request: pytest.FixtureRequest) -> None:
    url = request.getfixturevalue(f"{engine}_url")
    with asyncio.Runner() as runner:
        database = DatabaseManager(url)
        run = runner.run

        class Machine(RuleBasedStateMachine):
            @initialize()
            def begin(self) -> None:
                self.ours, self.theirs = AgentServiceStore(database), InMemoryStore()
                run(self.ours.aclear(()))

            @rule(ops=st.lists(OPS, min_size=1, max_size=6))
            def do(self, ops: list[Op]) -> None:
                # One item stays in each namespace that is read or written.
                touched = {each.namespace for each in ops if isinstance(each, GetOp | PutOp)}
                anchors = [PutOp(each, "anchor", {"n": 0}) for each in sorted(touched)]
                for store in (self.ours, self.theirs):
                    run(store.abatch(anchors))

                ours, theirs = run(self.ours.abatch(ops)), run(self.theirs.abatch(ops))

                for op, mine, other in zip(ops, ours, theirs, strict=True):
                    if isinstance(op, SearchOp):
                        self.compare(op, mine, other)
                    else:
                        assert shown(op, mine) == shown(op, other), op

            def compare(self, op: SearchOp, mine: Any, other: Any) -> None:
                assert len(mine) == len(other), op
                if op.offset or len(other) == op.limit:
                    return
                assert contents(mine) == contents(other), op

            def teardown(self) -> None:
                whole = SearchOp((), limit=1000)
                found: list[Any] = [run(store.abatch([whole]))[0] for store in (self.ours, self.theirs)]
                mine, other = found
                assert contents(mine) == contents(other)

        Machine.TestCase.settings = settings(
            max_examples=examples(8, 200), stateful_step_count=8, phases=[Phase.generate]
        )
        try:
            run_state_machine_as_test(Machine)
        finally:
            run(database.close())


def contents(items: Any) -> dict[Any, Any]:
    return {(each.namespace, each.key): each.value for each in items}
