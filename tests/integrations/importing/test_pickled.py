"""Pickles that are read as data: what is plain comes back, whatever else there is does nothing."""

import os
import pickle
from collections import OrderedDict, defaultdict
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from pathlib import PurePosixPath
from typing import Any
from uuid import UUID

import pytest
from google.adk.events import EventActions
from google.adk.events.event_actions import EventCompaction
from google.genai import types
from hypothesis import given, settings
from hypothesis import strategies as st

from agent_service.integrations.importing.pickled import NotPlainError, read_pickle
from tests.support.depth import examples

PLAIN = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary() | st.datetimes()
    | st.datetimes(timezones=st.just(UTC)) | st.dates() | st.times() | st.timedeltas() | st.uuids()
    | st.decimals(allow_nan=False) | st.just(timezone(timedelta(hours=-3))) | st.frozensets(st.integers())
)  # fmt: skip
NESTED = st.recursive(
    PLAIN,
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text(), inner) | st.sets(PLAIN),
    max_leaves=6,
)


@settings(max_examples=examples(40, 3000))
@given(NESTED, st.integers(2, pickle.HIGHEST_PROTOCOL))
def test_plain_values_come_back(value: Any, protocol: int):
    assert read_pickle(pickle.dumps(value, protocol)) == value


def test_what_is_repeated_comes_back_each_time():
    part = {"a": [1]}

    assert read_pickle(pickle.dumps([part, part, (part, part)])) == [part, part, (part, part)]


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (OrderedDict(a=1), {"a": 1}),
        (defaultdict(list, a=[1]), {"a": [1]}),
        (PurePosixPath("/a/b"), PurePosixPath("/a/b")),
        (bytearray(b"x"), bytearray(b"x")),
        ([datetime(2026, 1, 2, tzinfo=UTC), date(1, 1, 1), time(1, fold=1), Decimal("1.50"), UUID(int=3)], None),
    ],
)
def test_types_of_the_standard_library_come_back(value: Any, plain: Any):
    assert read_pickle(pickle.dumps(value)) == (value if plain is None else plain)


def test_models_are_dicts_of_their_fields():
    content = types.Content(role="model", parts=[types.Part(text="x")])
    actions = EventActions(
        state_delta={"a": 1},
        compaction=EventCompaction(start_timestamp=1.0, end_timestamp=2.0, compacted_content=content),
    )

    found = read_pickle(pickle.dumps(actions))

    assert EventActions.model_validate({name: value for name, value in found.items() if value is not None}) == actions


class Runs:
    """A pickle that makes a folder when it is loaded."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self.path,)


def test_nothing_is_called(tmp_path: Any):
    path = tmp_path / "made"

    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        with pytest.raises(NotPlainError, match="pickle"):
            read_pickle(pickle.dumps({"a": [Runs(str(path))]}, protocol))

    assert not path.exists()


@pytest.mark.parametrize("value", [os.system, Runs, test_nothing_is_called, object(), range(3), Exception("x")])
def test_what_is_no_plain_data_is_refused(value: Any):
    with pytest.raises(NotPlainError, match="pickle"):
        read_pickle(pickle.dumps(value))


def test_a_few_bytes_cannot_come_to_any_number_of_values():
    bomb: Any = []
    for _ in range(60):
        bomb = [bomb, bomb]
    deep: Any = []
    for _ in range(400):
        deep = [deep]
    endless: Any = []
    endless.append(endless)

    for value in (bomb, deep, endless):
        with pytest.raises(NotPlainError, match="too many values, or is nested too deep"):
            read_pickle(pickle.dumps(value))


@settings(max_examples=examples(80, 20_000))
@given(st.binary(max_size=60) | st.builds(lambda value, cut: pickle.dumps(value)[:cut], NESTED, st.integers(0, 60)))
def test_damaged_bytes_are_refused_or_give_a_value_and_do_no_more(data: bytes):
    try:
        read_pickle(data)
    except NotPlainError as exc:
        assert "pickle" in str(exc)  # noqa: PT017 - either is right
