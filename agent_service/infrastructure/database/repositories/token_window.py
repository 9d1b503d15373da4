"""How much of a history fits a budget of tokens, without separating what belongs together.

That is a tool call and its result, in the forms that ``values/calls.py`` knows, and reasoning and the item after it.
A result without an id answers the last call before it. A call is answered once: a second result of the same id counts
alone.
"""

from collections.abc import Sequence
from itertools import accumulate
from typing import Final

from agent_service.infrastructure.database.models.message import SessionMessage
from agent_service.infrastructure.database.values.calls import calls_in, is_reasoning, results_in
from agent_service.infrastructure.database.values.texts import characters_in

__all__ = ["LOOK_FURTHER", "TokenWindow", "tokens"]

CHARACTERS_PER_TOKEN: Final = 4
LOOK_FURTHER: Final = 1_000
"""Messages past the budget that are looked through for the other half of a call; a half without one counts alone."""


def tokens(message: SessionMessage) -> int:
    """Return a message's own ``token_count``, else an estimate of its content and calls at 4 characters a token."""
    if message.token_count is not None:
        return message.token_count
    return -(-characters_in(message.data) // CHARACTERS_PER_TOKEN)


class TokenWindow:
    """Takes messages one after another, from one end of a history, until it has enough; then :meth:`fitting`.

    :param backward: whether messages come newest first.
    """

    def __init__(self, max_tokens: int, limit: int, *, backward: bool) -> None:
        self._left = max_tokens
        self._limit = limit
        self._backward = backward
        self._seen: list[SessionMessage] = []
        self._fits = 0
        self._full = False
        self._open: set[str | None] = set()

    def add(self, message: SessionMessage) -> bool:
        """Take a message; False: nothing further can change what fits."""
        self._left -= tokens(message)
        self._full = self._full or self._left < 0 or self._fits == self._limit
        self._seen.append(message)
        calls, results = list(calls_in(message.data)), list(results_in(message.data, message.role))
        first, second = (results, calls) if self._backward else (calls, results)
        # A result without an id answers any call; so, read backward, a call closes those too.
        self._open.difference_update({*second, None} if second and self._backward else second)
        if not self._full:
            self._fits += 1
            self._open.update(first)
        return not self._full or (bool(self._open) and len(self._seen) - self._fits < LOOK_FURTHER)

    def fitting(self) -> list[SessionMessage]:
        """Return the longest window within the budget that separates no pair, in the order of the history."""
        history = self._seen[::-1] if self._backward else self._seen
        parted = _cuts_that_part(history)
        kept = range(self._fits, 0, -1)
        if self._backward:
            count = next((each for each in kept if not parted[len(history) - each]), 0)
            return history[len(history) - count :]
        count = next((each for each in kept if not parted[each]), 0)
        return history[:count]


def _cuts_that_part(history: Sequence[SessionMessage]) -> list[int]:
    """Return how many pairs a cut would separate, for each place from before the first message on."""
    changes = [0] * (len(history) + 1)
    latest: dict[str | None, int] = {}
    for place, message in enumerate(history):
        for result in results_in(message.data, message.role):
            call = latest.pop(result, None)
            if call is not None:
                if latest.get(None) == call:
                    del latest[None]
                changes[call + 1] += 1
                changes[place + 1] -= 1
        for call_id in calls_in(message.data):
            latest[call_id] = latest[None] = place
        if is_reasoning(message.data) and place + 1 < len(history):
            changes[place + 1] += 1
            changes[place + 2] -= 1
    return list(accumulate(changes))
