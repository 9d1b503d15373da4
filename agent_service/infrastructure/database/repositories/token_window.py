"""How much of a history fits a budget of tokens, without separating a tool call from its result.

Calls and results are recognised in the forms of the providers: ``tool_calls`` answered by ``tool_call_id``,
parts of type ``tool_use`` answered by ``tool_result``, items ``function_call`` answered by ``function_call_output``,
and the older ``function_call`` answered by role ``function``. A result without an id answers the last call before it.
A call is answered once: a second result of the same id counts alone.
"""

from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Any, Final

from agent_service.infrastructure.database.models.message import SessionMessage
from agent_service.infrastructure.database.values.documents import dumps

__all__ = ["LOOK_FURTHER", "TokenWindow", "tokens"]

CHARACTERS_PER_TOKEN: Final = 4
LOOK_FURTHER: Final = 1_000
"""Messages past the budget that are looked through for the other half of a call; a half without one counts alone."""

_SENT = ("content", "tool_calls", "function_call", "arguments", "output")
_RESULT_ROLES = ("tool", "function")


def tokens(message: SessionMessage) -> int:
    """Return a message's own ``token_count``, else an estimate of its content and calls at 4 characters a token."""
    if message.token_count is not None:
        return message.token_count
    values = [value for value in (message.data.get(name) for name in _SENT) if value is not None]
    characters = sum(len(each if isinstance(each, str) else dumps(each)) for each in values)
    return -(-characters // CHARACTERS_PER_TOKEN)


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
        calls, results = list(_calls(message.data)), list(_results(message.data))
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
        for result in _results(message.data):
            call = latest.pop(result, None)
            if call is not None:
                if latest.get(None) == call:
                    del latest[None]
                changes[call + 1] += 1
                changes[place + 1] -= 1
        for call_id in _calls(message.data):
            latest[call_id] = latest[None] = place
    return list(accumulate(changes))


def _calls(data: dict[str, Any]) -> Iterator[str | None]:
    for item in _items(data.get("tool_calls")):
        yield _id(item.get("id"))
    for part in _items(data.get("content")):
        if part.get("type") == "tool_use":
            yield _id(part.get("id"))
    if data.get("type") == "function_call":
        yield _id(data.get("call_id"))
    elif data.get("function_call"):
        yield None


def _results(data: dict[str, Any]) -> Iterator[str | None]:
    parts = [part for part in _items(data.get("content")) if part.get("type") == "tool_result"]
    for part in parts:
        yield _id(part.get("tool_use_id"))
    if "tool_call_id" in data:
        yield _id(data["tool_call_id"])
    elif data.get("type") == "function_call_output":
        yield _id(data.get("call_id"))
    elif data.get("role") in _RESULT_ROLES and not parts:
        yield None


def _items(value: Any) -> list[dict[str, Any]]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def _id(value: Any) -> str | None:
    return value if isinstance(value, str) else None
