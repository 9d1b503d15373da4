"""A model that answers from a script, and what agents around it do."""

from collections.abc import AsyncGenerator, Callable
from typing import Any

from google.adk.agents import Agent
from google.adk.models.base_llm import BaseLlm
from google.adk.models.llm_request import LlmRequest
from google.adk.models.llm_response import LlmResponse
from google.adk.tools.long_running_tool import LongRunningFunctionTool
from google.adk.tools.tool_context import ToolContext
from google.genai import types
from pydantic import PrivateAttr

Answer = types.Content | list[types.Content]


class ScriptedLlm(BaseLlm):
    """Gives one answer after the other; an answer in pieces is streamed, as partial responses before the whole."""

    model: str = "scripted"
    _answers: list[Answer] = PrivateAttr(default_factory=list)
    _asked: list[LlmRequest] = PrivateAttr(default_factory=list)

    def __init__(self, *answers: Answer) -> None:
        super().__init__(model="scripted")
        self._answers = list(answers)

    @property
    def asked(self) -> list[LlmRequest]:
        """The requests so far."""
        return self._asked

    async def generate_content_async(
        self, llm_request: LlmRequest, stream: bool = False
    ) -> AsyncGenerator[LlmResponse, None]:
        self._asked.append(llm_request)
        answer = self._answers.pop(0)
        if isinstance(answer, list):
            if stream:
                for piece in answer:
                    yield LlmResponse(content=piece, partial=True)
            answer = text("".join(part.text or "" for piece in answer for part in piece.parts or ()))
        yield LlmResponse(content=answer)


def text(said: str) -> types.Content:
    """An answer in words."""
    return types.Content(role="model", parts=[types.Part(text=said)])


def calls(*functions: tuple[str, dict[str, Any]]) -> types.Content:
    """An answer that calls tools, all at once."""
    parts = [
        types.Part(function_call=types.FunctionCall(id=f"c-{name}-{place}", name=name, args=arguments))
        for place, (name, arguments) in enumerate(functions)
    ]
    return types.Content(role="model", parts=parts)


def timetable(to: str, tool_context: ToolContext) -> dict[str, str]:
    """Say when the train leaves."""
    tool_context.state["asked:" + to] = True
    tool_context.state["user:last_town"] = to
    tool_context.state["temp:draft"] = "unstored"
    return {"leaves": f"16:05 to {to}"}


def approve(ticket: str) -> None:
    """Ask a person, who answers later."""


def agent(*answers: Answer, **fields: Any) -> Agent:
    """An agent with the two tools."""
    tools: list[Callable[..., Any] | LongRunningFunctionTool] = [timetable, LongRunningFunctionTool(approve)]
    return Agent(**{"name": "root", "model": ScriptedLlm(*answers), "tools": tools, **fields})
