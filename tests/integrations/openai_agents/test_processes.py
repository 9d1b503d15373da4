"""Several processes in one session, and one that is killed in the middle of its work. On both engines."""

from collections.abc import Sequence
from typing import Any

import pytest

from agent_service.integrations.openai_agents.items import client_id_of
from tests.integrations.openai_agents.adder import appends_of
from tests.integrations.openai_agents.conftest import NewSession
from tests.support.depth import examples
from tests.support.forked import Forked

ADDER = "tests.integrations.openai_agents.adder"


def pairs_of(items: Sequence[Any]) -> tuple[list[str], list[str]]:
    """Return the ids of the calls and of the outputs among items."""
    return tuple(  # type: ignore[return-value]
        [item["call_id"] for item in items if item.get("type") == kind]
        for kind in ("function_call", "function_call_output")
    )


@pytest.mark.parametrize("way", ["repository", "writer"])
async def test_a_reader_of_whole_turns_never_sees_a_call_without_its_output(
    new: NewSession, database_url: str, way: str
) -> None:
    turns, names, session = examples(10, 150), ("one", "two"), new()
    with (
        await Forked.start(ADDER, database_url, "chat", names[0], str(turns), way) as one,
        await Forked.start(ADDER, database_url, "chat", names[1], str(turns), way) as two,
    ):
        for number in range(2 * turns):
            for process in (one, two):
                process.stdin.write(b"\n")
            for limit in (None, 8):  # Meanwhile they add.
                calls, outputs = pairs_of(await session.get_items(limit, whole_turns=True))
                assert sorted(calls) == sorted(outputs)
            assert [await process.line() for process in (one, two)] == [str(number)] * 2
            if number % 2 == 0:
                calls, outputs = pairs_of(await session.get_items())
                assert len(calls) == len(outputs) + 2
            calls, outputs = pairs_of(await session.get_items(whole_turns=True))
            assert len(calls) == len(outputs) == number // 2 * 2 + number % 2 * 2
        for process in (one, two):
            assert await process.wait() == 0

    items = await session.get_items()
    assert await session.get_items(whole_turns=True) == items
    for name in names:
        added = [item for turn in range(turns) for items_ in appends_of(name, turn) for item in items_]
        assert [item for item in items if item in added] == added
    assert len(items) == 2 * turns * 5


@pytest.mark.parametrize("way", ["repository", "writer"])
async def test_a_killed_process_leaves_what_was_acknowledged_and_no_half_of_an_append(
    new: NewSession, database_url: str, way: str
) -> None:
    session = new()
    expected: list[Any] = []
    for life in range(examples(2, 10)):
        name = f"life {life}"
        with await Forked.start(ADDER, database_url, "chat", name, "1000", way) as process:
            process.stdin.write(b"\n" * 2000)
            acknowledged = 0
            while acknowledged < 5 + 4 * life:
                assert await process.line() == str(acknowledged)
                acknowledged += 1
            process.kill()
            while line := await process.line():
                assert line == str(acknowledged)
                acknowledged += 1
        appends = [items for turn in range(acknowledged // 2 + 1) for items in appends_of(name, turn)]

        found = await session.get_items()
        stored = [expected + [item for items in appends[:count] for item in items] for count in range(len(appends) + 1)]
        # What was in flight is there as a whole or not at all.
        assert found in stored[acknowledged : acknowledged + 2]
        # Another process goes on where it was: it repeats the last append, and adds nothing twice.
        again = new()
        for items in appends[: acknowledged + 1]:
            await again.add_items(items)
        expected = stored[acknowledged + 1]
        assert await session.get_items() == expected
        assert len({client_id_of(item) for item in expected}) == len(expected)
