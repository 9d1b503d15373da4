"""Histories that a model takes: no call without its output, no output without its call, no reasoning alone.

Several processes may write one session at once, and each appends a call before its output. So what is stored may end,
or hold in its middle, a call that is still being worked on.
"""

from collections.abc import Sequence

from agent_service.infrastructure.database.models.message import SessionMessage
from agent_service.infrastructure.database.values.calls import calls_in, is_reasoning, results_in

__all__ = ["whole_turns"]


def whole_turns(messages: Sequence[SessionMessage], *, from_the_start: bool) -> list[SessionMessage]:
    """Return the messages without those of turns that are not whole.

    Left out are calls without an output, outputs without a call, and reasoning whose next item is left out or missing.

    :param from_the_start: whether the history begins with the first of them. Otherwise what comes before the first
        message of a user is left out too, because it may belong to items that are not among them.
    """
    first = 0 if from_the_start else _first_of_a_turn(messages)
    kept = list(messages[first:])
    while True:
        alone = _alone(kept)
        if not alone:
            return kept
        kept = [message for place, message in enumerate(kept) if place not in alone]


def _first_of_a_turn(messages: Sequence[SessionMessage]) -> int:
    users = (place for place, message in enumerate(messages) if message.data.get("role") == "user")
    return next(users, len(messages))


def _alone(messages: Sequence[SessionMessage]) -> set[int]:
    """Return the places of messages that lack what belongs to them."""
    alone: set[int] = set()
    waiting: list[tuple[str | None, int]] = []
    for place, message in enumerate(messages):
        for answered in results_in(message.data, message.role):
            call = next((each for each in reversed(waiting) if answered in (None, each[0])), None)
            if call is None:
                alone.add(place)
            else:
                waiting.remove(call)
        waiting += [(call_id, place) for call_id in calls_in(message.data)]
    alone.update(place for _, place in waiting)
    last = len(messages)
    for place in range(len(messages) - 1, -1, -1):
        if not is_reasoning(messages[place].data):
            last = place
        elif last == len(messages) or last in alone:
            alone.add(place)
    return alone
