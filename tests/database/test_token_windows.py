"""Windows by tokens hold as much as fits and never part a tool call from its result. On both engines."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_service.core.errors import SessionNotFoundError, SessionValueError
from agent_service.infrastructure.database.models.message import SessionMessage
from agent_service.infrastructure.database.repositories import SessionRepository
from agent_service.infrastructure.database.repositories.token_window import TokenWindow, tokens
from tests.database.conftest import NewSession

CALL = {"role": "assistant", "content": None, "tool_calls": [{"id": "c1", "name": "f", "arguments": "{}"}]}
RESULT = {"role": "tool", "tool_call_id": "c1", "content": "42"}
ANTHROPIC_CALL = {"role": "assistant", "content": [{"type": "tool_use", "id": "t1", "name": "f", "input": {}}]}
ANTHROPIC_RESULT = {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t1", "content": "42"}]}
ITEM_CALL = {"role": "assistant", "type": "function_call", "call_id": "f1", "arguments": "{}"}
ITEM_RESULT = {"role": "tool", "type": "function_call_output", "call_id": "f1", "output": "42"}
OLD_CALL = {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": "{}"}}
OLD_RESULT = {"role": "function", "name": "f", "content": "42"}
PAIRS = [(CALL, RESULT), (ANTHROPIC_CALL, ANTHROPIC_RESULT), (ITEM_CALL, ITEM_RESULT), (OLD_CALL, OLD_RESULT)]


def stored(seq: int, data: dict[str, Any]) -> SessionMessage:
    return SessionMessage.stored(seq=seq, role=data["role"], data=data, token_count=data.get("token_count"))


def window(messages: list[dict[str, Any]], budget: int, *, backward: bool = True, limit: int = 1000) -> list[int]:
    chosen = TokenWindow(budget, limit, backward=backward)
    history = [stored(number, each) for number, each in enumerate(messages, 1)]
    for message in reversed(history) if backward else history:
        if not chosen.add(message):
            break
    return [each.seq for each in chosen.fitting()]


@pytest.mark.parametrize(
    ("message", "estimate"),
    [
        ({"role": "user", "content": "x" * 40}, 10),
        ({"role": "user", "content": "x" * 41}, 11),
        ({"role": "user", "content": "x" * 400, "token_count": 3}, 3),
        ({"role": "user", "content": "x", "token_count": 0}, 0),
        ({"role": "user", "content": ""}, 0),
        ({"role": "user"}, 0),
        ({"role": "user", "content": None, "metadata": {"not": "sent"}}, 0),
        ({"role": "user", "content": [{"a": "bc"}]}, 3),
        ({"role": "assistant", "content": "1234", "tool_calls": [{"id": "x"}]}, 4),
    ],
)
def test_a_message_costs_its_own_count_or_an_estimate(message: dict[str, Any], estimate: int) -> None:
    assert tokens(stored(1, message)) == estimate


@pytest.mark.parametrize(("call", "result"), PAIRS)
def test_a_window_never_begins_or_ends_between_a_call_and_its_result(
    call: dict[str, Any], result: dict[str, Any]
) -> None:
    history = [each | {"token_count": 1} for each in ({"role": "user"}, call, result, {"role": "assistant"})]

    assert [window(history, budget) for budget in range(5)] == [[], [4], [4], [2, 3, 4], [1, 2, 3, 4]]
    assert [window(history, budget, backward=False) for budget in range(5)] == [
        [], [1], [1], [1, 2, 3], [1, 2, 3, 4],
    ]  # fmt: skip
    assert window(history, 100, limit=2) == [4]


def test_a_result_without_a_call_counts_alone() -> None:
    history = [each | {"token_count": 1} for each in ({"role": "user"}, {"role": "user"}, RESULT, {"role": "user"})]

    assert window(history, 2) == [3, 4]


def test_an_id_used_again_belongs_to_the_latest_call() -> None:
    history = [each | {"token_count": 1} for each in (CALL, RESULT, CALL, RESULT)]

    assert [window(history, budget) for budget in range(1, 5)] == [[], [3, 4], [3, 4], [1, 2, 3, 4]]


STEPS = st.lists(
    st.tuples(st.sampled_from(["user", "call", "result"]), st.sampled_from(["a", "b"]), st.integers(0, 3)), max_size=12
)


@given(steps=STEPS, budget=st.integers(0, 20), limit=st.integers(1, 12), backward=st.booleans())
def test_any_window_is_the_longest_that_fits_and_parts_nothing(
    steps: list[tuple[str, str, int]], budget: int, limit: int, backward: bool
) -> None:
    kinds: dict[str, Any] = {
        "user": lambda _: {"role": "user"},
        "call": lambda name: {"role": "assistant", "tool_calls": [{"id": name}]},
        "result": lambda name: {"role": "tool", "tool_call_id": name},
    }
    history = [kinds[kind](name) | {"token_count": cost} for kind, name, cost in steps]

    assert window(history, budget, backward=backward, limit=limit) == longest(history, budget, limit, backward)


def longest(history: list[dict[str, Any]], budget: int, limit: int, backward: bool) -> list[int]:
    """Try every window from the longest down."""
    pairs: list[tuple[int, int]] = []
    for place, message in enumerate(history):
        calls = [
            before
            for before in range(place)
            if any(call["id"] == message.get("tool_call_id") for call in history[before].get("tool_calls", []))
        ]
        answered = {call for call, _ in pairs}
        if calls and message["role"] == "tool" and calls[-1] not in answered:
            pairs.append((calls[-1], place))
    for count in range(min(limit, len(history)), -1, -1):
        kept = range(len(history) - count, len(history)) if backward else range(count)
        fits = sum(history[place]["token_count"] for place in kept) <= budget
        if fits and not any((call in kept) != (result in kept) for call, result in pairs):
            return [place + 1 for place in kept]
    return []


async def test_a_window_is_read_from_the_end_or_after_a_number(
    repo: SessionRepository, new_session: NewSession
) -> None:
    session = await new_session()
    for message in ({"role": "user", "content": "x" * 40}, CALL, RESULT, {"role": "user", "content": "y" * 20}) * 3:
        await repo.add_message_to_session(session.id, message)

    async def numbers(**bounds: Any) -> list[int]:
        return [each.seq for each in await repo.get_messages(session.id, **bounds)]

    assert await numbers(max_tokens=4) == []
    assert await numbers(max_tokens=5) == [12]
    assert await numbers(max_tokens=6) == [12]
    assert await numbers(max_tokens=16) == [12]
    assert await numbers(max_tokens=17) == [10, 11, 12]
    assert await numbers(max_tokens=10_000) == list(range(1, 13))
    assert await numbers(max_tokens=10_000, before_seq=4) == [1, 2, 3]
    assert await numbers(max_tokens=10, after_seq=0) == [1]
    assert await numbers(max_tokens=15, roles=["user"]) == [9, 12]
    assert await numbers(max_tokens=0, roles=["user"]) == []


async def test_a_budget_reaches_beyond_one_page_and_past_the_default_limit(
    repo: SessionRepository, new_session: NewSession
) -> None:
    session = await new_session()
    for number in range(450):
        await repo.add_message_to_session(session.id, {"role": "user", "content": str(number), "token_count": 1})

    assert len(await repo.get_messages(session.id, max_tokens=430)) == 430
    assert len(await repo.get_messages(session.id)) == 50
    assert [each.seq async for each in repo.iter_messages(session.id)] == list(range(1, 451))


async def test_only_messages_of_the_roles_asked_for(repo: SessionRepository, new_session: NewSession) -> None:
    session = await new_session()
    for role in ("system", "user", "assistant", "user"):
        await repo.add_message_to_session(session.id, {"role": role})

    assert [each.seq for each in await repo.get_messages(session.id, roles=("user", "system"))] == [1, 2, 4]
    assert [each.seq for each in await repo.get_messages(session.id, roles=["user"], limit=1)] == [4]
    assert await repo.get_messages(session.id, roles=[]) == []
    with pytest.raises(SessionNotFoundError):
        await SessionRepository(repo._db, "other").get_messages(session.id, max_tokens=5)


@pytest.mark.parametrize(
    ("bounds", "name"),
    [
        ({"roles": "user"}, "roles"),
        ({"roles": [7]}, r"roles\[0\]"),
        ({"roles": 7}, "roles"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"max_tokens": 1.5}, "max_tokens"),
        ({"limit": 0}, "limit"),
    ],
)
async def test_bounds_that_cannot_be_are_refused(repo: SessionRepository, bounds: dict[str, Any], name: str) -> None:
    with pytest.raises(SessionValueError, match=f"^{name} "):
        await repo.get_messages("01980000-0000-7000-8000-000000000000", **bounds)


async def test_iterating_ends_at_the_message_that_was_last_when_it_began(
    repo: SessionRepository, new_session: NewSession
) -> None:
    session = await new_session()
    await repo.add_message_to_session(session.id, {"role": "user"})
    seen = []

    async for message in repo.iter_messages(session.id):
        seen.append(message.seq)
        await repo.add_message_to_session(session.id, {"role": "user"})

    assert seen == [1]
