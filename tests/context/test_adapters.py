"""Adapters: the document's example, key forms, bulk calls, renames, in both faces."""

import subprocess
import sys
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pandas as pd
import pytest

from agent_service.context import sync
from agent_service.context.adapters import PandasContextAdapter
from agent_service.context.memory import InMemoryContextStore
from agent_service.core.errors import ContextKeyError
from tests.support.ids import steady


def test_the_documents_example_prints_what_it_says(capsys: pytest.CaptureFixture[str]):
    from agent_service.context.sync import InMemoryContextStore, PandasContextAdapter  # noqa: PLC0415

    # 1. Create a store backend
    store = InMemoryContextStore()

    # 2. Wrap your data structure with an adapter, providing the store
    df = pd.DataFrame({
        "ColumnA": [1, 2, 3],
        "ColumnB": [4, 5, 6],
    })  # fmt: skip
    adapter = PandasContextAdapter(df, context_store=store)

    # 3. Add or retrieve context
    adapter.add_context(("column", "ColumnA"), {"desc": "Integer values"})
    print(adapter.get_context(("column", "ColumnA")))  # noqa: T201

    # 4. Inspect store contents directly (not typical, just for debugging)
    print(store.list_keys())  # noqa: T201

    assert capsys.readouterr().out == "{'desc': 'Integer values'}\n[('column', 'ColumnA')]\n"


@pytest.fixture
def frame() -> pd.DataFrame:
    return pd.DataFrame({"a": [1, 2], "b": [3, 4], 7: [5, 6]}, index=["x", "y"])


@pytest.fixture
def adapter(frame: pd.DataFrame) -> PandasContextAdapter:
    return PandasContextAdapter(frame, context_store=InMemoryContextStore())


async def test_columns_rows_and_cells_have_contexts(adapter: PandasContextAdapter):
    await adapter.add_many(
        {("column", "a"): {"c": 1}, ("row", "x"): {"r": 1}, ("row", "x", "column", "a"): {"cell": 1}}
    )
    merged = await adapter.update_context(("column", "a"), {"d": 2})

    assert merged == await adapter.get_context(("column", "a")) == {"c": 1, "d": 2}
    assert await adapter.get_context(("row", "x", "column", "a")) == {"cell": 1}
    assert await adapter.get_context(("column", "b")) is None
    assert await adapter.remove_many([("row", "x"), ("row", "y")]) == 1
    assert sorted(await adapter.list_context_keys()) == [("column", "a"), ("row", "x", "column", "a")]


@pytest.mark.parametrize(
    "key",
    [
        "a", ("a",), ("column",), ("columns", "a"), ("column", "a", "row", "x"), ("row", "x", "column"), None, [], {},
        ("column", ["a"]), ["column", "a"], ["row", "x", "column", "a"], ("column", {}), ("column", ("a", [])),
        ("column", np.array(["a"])), {"column": "a"}, {"column", "a"}, bytearray(b"a"), ("column", object()),
        ("row", "x", "column", {"a"}), ("column", "\ud800"),
    ],
    ids=steady,
)  # fmt: skip
async def test_a_key_of_another_form_is_refused(adapter: PandasContextAdapter, key: Any):
    for call in (
        adapter.add_context(key, {}),
        adapter.get_context(key),
        adapter.remove_context(key),
        adapter.update_context(key, {}),
        adapter.remove_many([key]),
    ):
        with pytest.raises(ContextKeyError):
            await call


@pytest.mark.parametrize("key", [("column", "z"), ("row", "a"), ("row", "x", "column", "z"), ("column", "7")])
async def test_a_key_that_names_nothing_is_refused(adapter: PandasContextAdapter, key: Any):
    for call in (adapter.add_context(key, {}), adapter.add_many({key: {}}), adapter.get_context(key)):
        with pytest.raises(ContextKeyError, match="no "):
            await call
    assert await adapter.store.list_keys() == []


async def test_the_context_of_a_column_that_is_gone_can_be_read_and_removed(
    adapter: PandasContextAdapter, frame: pd.DataFrame
):
    await adapter.add_context(("column", "a"), {"x": 1})
    del frame["a"]

    assert await adapter.get_context(("column", "a")) == {"x": 1}
    await adapter.remove_context(("column", "a"))
    assert await adapter.list_context_keys() == []


async def test_a_rename_carries_the_context_over_with_that_of_its_cells(
    adapter: PandasContextAdapter, frame: pd.DataFrame
):
    await adapter.add_many(
        {
            ("column", "a"): {"n": 1},
            ("row", "x", "column", "a"): {"n": 2},
            ("row", "x", "column", "b"): {"n": 3},
            ("row", "x"): {"n": 4},
        }
    )
    adapter.data = frame.rename(columns={"a": "renamed"}, index={"x": "first"})

    assert await adapter.rename_key(("column", "a"), ("column", "renamed")) == 2
    assert await adapter.rename_key(("row", "x"), ("row", "first")) == 3
    assert await adapter.store.get_many(await adapter.list_context_keys()) == {
        ("column", "renamed"): {"n": 1},
        ("row", "first", "column", "renamed"): {"n": 2},
        ("row", "first", "column", "b"): {"n": 3},
        ("row", "first"): {"n": 4},
    }


async def test_a_rename_to_nothing_or_to_another_kind_is_refused(adapter: PandasContextAdapter):
    await adapter.add_context(("column", "a"), {"n": 1})

    for old, new in [(("column", "a"), ("column", "z")), (("column", "a"), ("row", "x"))]:
        with pytest.raises(ContextKeyError):
            await adapter.rename_key(old, new)
    assert await adapter.rename_key(("column", "a"), ("column", "a")) == 0
    assert await adapter.get_context(("column", "a")) == {"n": 1}


async def test_labels_of_numpy_and_pandas_stand_for_python_values():
    moment = datetime(2026, 1, 2, tzinfo=UTC)
    frame = pd.DataFrame({np.int64(1): [1]}, index=pd.DatetimeIndex([moment]))
    adapter = PandasContextAdapter(frame)

    await adapter.add_context(("column", np.int64(1)), {"n": 1})
    await adapter.add_context(("row", frame.index[0]), {"n": 2})

    assert await adapter.get_context(("column", 1)) == {"n": 1}
    assert await adapter.get_context(("row", moment)) == {"n": 2}
    with pytest.raises(ContextKeyError, match="nanoseconds"):
        await adapter.get_context(("row", pd.Timestamp(1)))


async def test_adapters_share_a_store_and_leave_other_keys_alone(frame: pd.DataFrame):
    store = InMemoryContextStore()
    await store.set("session-123", {})
    one, other = (PandasContextAdapter(frame, context_store=store) for _ in range(2))
    await one.add_context(("column", 7), {"n": 1})

    assert await other.list_context_keys() == [("column", 7)]
    assert len(await store.list_keys()) == 2


def test_the_synchronous_adapter_does_the_same(frame: pd.DataFrame):
    adapter = sync.PandasContextAdapter(frame)
    adapter.add_many({("column", "a"): {"n": 1}, ("row", "x"): {"n": 2}})

    assert adapter.update_context(("column", "a"), {"m": 2}) == {"n": 1, "m": 2}
    adapter.data = frame.rename(columns={"a": "renamed"})
    assert adapter.rename_key(("column", "a"), ("column", "renamed")) == 1
    assert adapter.get_context(("column", "renamed")) == {"n": 1, "m": 2}
    adapter.remove_context(("column", "renamed"))
    assert adapter.remove_many([("row", "x")]) == 1
    assert adapter.list_context_keys() == []


async def test_a_store_of_the_other_face_is_taken(frame: pd.DataFrame):
    store = InMemoryContextStore()
    sync.PandasContextAdapter(frame, context_store=store).add_context(("column", "a"), {"n": 1})
    adapter = PandasContextAdapter(frame, context_store=store.sync)

    assert await adapter.get_context(("column", "a")) == {"n": 1}


def test_data_without_columns_is_refused(frame: pd.DataFrame):
    with pytest.raises(ContextKeyError, match="columns"):
        PandasContextAdapter([1, 2])


async def test_an_adapter_that_looks_keys_up_refuses_those_that_are_not_hashable():
    class Looks(PandasContextAdapter):
        def normalised(self, key: Any) -> Any:
            return {"a": "a"}.get(key, "b")

    adapter = Looks(pd.DataFrame())

    unusable: list[Any] = [[], {}, ("a", []), {"a"}]
    for key in unusable:
        for call in (adapter.get_context(key), adapter.remove_many([key]), adapter.add_many([(key, {})])):
            with pytest.raises(ContextKeyError, match="hashable"):
                await call


async def test_many_contexts_may_be_pairs(adapter: PandasContextAdapter):
    await adapter.add_many([(("column", "a"), {"n": 1}), (("row", "x"), {"n": 2})])

    assert await adapter.get_context(("row", "x")) == {"n": 2}


def test_pandas_is_not_needed():
    program = (
        "import sys; sys.modules['pandas'] = None\n"
        "from agent_service.context.sync import PandasContextAdapter\n"
        "class Table: columns = ['a']; index = range(3)\n"
        "adapter = PandasContextAdapter(Table())\n"
        "adapter.add_context(('row', 2, 'column', 'a'), {'n': 1})\n"
        "print(adapter.list_context_keys())"
    )

    result = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, text=True)

    assert result.stdout == "[('row', 2, 'column', 'a')]\n"
