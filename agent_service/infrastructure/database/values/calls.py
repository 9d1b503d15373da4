"""Which stored documents belong together: a tool call and its result, reasoning and what follows from it.

Calls and results are recognised in the forms of the providers and frameworks:

* ``tool_calls`` answered by ``tool_call_id``, and the older ``function_call`` answered by role ``function``
* parts of type ``tool_use`` answered by ``tool_result``
* items of the Responses API: ``function_call`` answered by ``function_call_output``, any other ``..._call`` with a
  ``call_id`` by its ``..._call_output``, ``tool_search_call`` and ``program`` with a ``call_id`` by
  ``tool_search_output`` and ``program_output``, ``mcp_approval_request`` by ``mcp_approval_response``
* parts of Google's contents: ``function_call`` answered by ``function_response``
* parts of Pydantic AI's messages: ``tool-call`` answered by ``tool-return`` or ``retry-prompt``
"""

from collections.abc import Iterator, Sequence
from typing import Any, Final

__all__ = ["calls_in", "is_reasoning", "results_in"]

_RESULT_ROLES: Final = ("tool", "function")
_CALL: Final = "_call"
_OUTPUT: Final = "_call_output"
_OTHER_CALLS: Final = ("program",)
_OTHER_OUTPUTS: Final = ("tool_search_output", "program_output")
"""What the provider has run itself has no ``call_id``, and nobody else answers it."""
_CALL_PARTS: Final = ("tool-call", "builtin-tool-call")
_RESULT_PARTS: Final = ("tool-return", "builtin-tool-return")


def calls_in(data: dict[str, Any]) -> Iterator[str | None]:
    """Return the id of each call that a document makes; None: a call without an id."""
    for item in _dicts(data.get("tool_calls")):
        yield _text(item.get("id"))
    for part in _parts(data):
        if part.get("type") == "tool_use":
            yield _text(part.get("id"))
        elif isinstance(part.get("function_call"), dict):
            yield _text(part["function_call"].get("id"))
        elif part.get("part_kind") in _CALL_PARTS:
            yield _text(part.get("tool_call_id"))
    kind, call_id = _text(data.get("type")) or "", _text(data.get("call_id"))
    if kind == "mcp_approval_request":
        yield _text(data.get("id"))
    elif kind == "function_call" or (call_id is not None and (kind.endswith(_CALL) or kind in _OTHER_CALLS)):
        yield call_id
    elif data.get("function_call"):
        yield None


def results_in(data: dict[str, Any], role: str) -> Iterator[str | None]:
    """Return the id of the call that each result in a document answers; None: the last call before it.

    :param role: the message's role, in the document or beside it.
    """
    found = False
    for part in _parts(data):
        answers, call_id = _answers(part)
        if answers:
            found = True
            yield call_id
    kind = _text(data.get("type")) or ""
    if "tool_call_id" in data:
        yield _text(data["tool_call_id"])
    elif kind == "mcp_approval_response":
        yield _text(data.get("approval_request_id"))
    elif kind.endswith(_OUTPUT):
        # The output of a local shell names its call by its own id.
        yield _text(data.get("call_id")) or _text(data.get("id"))
    elif kind in _OTHER_OUTPUTS:
        if (call_id := _text(data.get("call_id"))) is not None:
            yield call_id
    elif role in _RESULT_ROLES and not found:
        yield None


def is_reasoning(data: dict[str, Any]) -> bool:
    """Whether a document is reasoning, which providers take only together with the item that follows it."""
    return data.get("type") == "reasoning"


def _answers(part: dict[str, Any]) -> tuple[bool, str | None]:
    if part.get("type") == "tool_result":
        return True, _text(part.get("tool_use_id"))
    if isinstance(part.get("function_response"), dict):
        return True, _text(part["function_response"].get("id"))
    # Without a tool's name it asks the model for another answer, and answers no call.
    asks_again = part.get("part_kind") == "retry-prompt" and part.get("tool_name") is not None
    return asks_again or part.get("part_kind") in _RESULT_PARTS, _text(part.get("tool_call_id"))


def _parts(data: dict[str, Any]) -> Sequence[dict[str, Any]]:
    content, parts = data.get("content"), data.get("parts")
    if isinstance(content, dict):
        content = content.get("parts")
    return _dicts(content) if parts is None else [*_dicts(content), *_dicts(parts)]


def _dicts(value: Any) -> Sequence[dict[str, Any]]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else ()


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None
