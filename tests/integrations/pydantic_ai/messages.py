"""Messages, usage and deferred requests as Pydantic AI makes them."""

from typing import Any

from hypothesis import strategies as st
from pydantic_ai import DeferredToolRequests
from pydantic_ai.messages import (
    BinaryContent,
    ModelMessage,
    ModelRequest,
    ModelResponse,
    SystemPromptPart,
    TextPart,
    ThinkingPart,
    ToolCallPart,
    ToolReturnPart,
    UserPromptPart,
)
from pydantic_ai.usage import RequestUsage, RunUsage

__all__ = ["answer", "deferred", "messages", "question", "usages"]


def question(text: str) -> ModelRequest:
    """What a user says."""
    return ModelRequest(parts=[UserPromptPart(text)])


def answer(text: str) -> ModelResponse:
    """What a model says."""
    return ModelResponse(parts=[TextPart(text)])


_texts = st.text(max_size=12) | st.sampled_from(["", "\x00", "\u2028é", "𝄞 '\"\\"])
_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | _texts,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(_texts, inner, max_size=2),
    max_leaves=4,
)
_arguments = st.dictionaries(_texts, _json, max_size=2)
_calls: st.SearchStrategy[ToolCallPart] = st.builds(
    ToolCallPart, tool_name=st.sampled_from("xy"), args=_arguments, tool_call_id=st.sampled_from("123")
)
_files = st.builds(BinaryContent, data=st.binary(max_size=4), media_type=st.just("application/pdf"))
_asked: st.SearchStrategy[Any] = (
    st.builds(UserPromptPart, content=_texts | st.lists(_texts | _files, min_size=1, max_size=2))
    | st.builds(SystemPromptPart, content=_texts)
    | st.builds(ToolReturnPart, tool_name=st.just("x"), content=_json, tool_call_id=st.sampled_from("123"))
)
_said = st.builds(TextPart, content=_texts) | st.builds(ThinkingPart, content=_texts) | _calls
_requests = st.builds(ModelRequest, parts=st.lists(_asked, min_size=1, max_size=2), metadata=st.none() | _arguments)
_responses = st.builds(
    ModelResponse,
    parts=st.lists(_said, min_size=1, max_size=2),
    usage=st.builds(RequestUsage, input_tokens=st.integers(0, 9)),
    model_name=st.none() | _texts,
)

messages: st.SearchStrategy[list[ModelMessage]] = st.lists(_requests | _responses, min_size=1, max_size=3)
usages = st.builds(
    RunUsage,
    requests=st.integers(0, 9),
    tool_calls=st.integers(0, 9),
    output_tokens=st.integers(0, 2**40),
    details=st.dictionaries(_texts, st.integers(0, 9), max_size=2),
)
deferred = st.none() | st.builds(
    DeferredToolRequests,
    calls=st.lists(_calls, max_size=1),
    approvals=st.lists(_calls, max_size=1),
    metadata=st.dictionaries(st.sampled_from("123"), _arguments, max_size=1),
)
