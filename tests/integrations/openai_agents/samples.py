"""Items of the Responses API, as the SDK stores them."""

from typing import Any

__all__ = ["EVERY_KIND", "call", "output", "reasoning", "reply", "said"]


def said(text: str) -> Any:
    """What a user says: it has no id."""
    return {"role": "user", "content": text}


def reply(text: str, id_: str | None = None) -> Any:
    """A message of the assistant."""
    content = [{"type": "output_text", "text": text, "annotations": [], "logprobs": []}]
    item = {"type": "message", "role": "assistant", "status": "completed", "content": content}
    return item if id_ is None else {"id": id_, **item}


def reasoning(id_: str) -> Any:
    """Reasoning, which a model takes only with what followed it."""
    return {"type": "reasoning", "id": id_, "summary": [{"type": "summary_text", "text": f"thinking {id_}"}]}


def call(call_id: str, id_: str | None = None, name: str = "weather") -> Any:
    """A call of a tool."""
    item = {"type": "function_call", "call_id": call_id, "name": name, "arguments": '{"city":"Tromsø"}'}
    return item if id_ is None else {"id": id_, **item}


def output(call_id: str, text: str = "snow") -> Any:
    """What a tool returned."""
    return {"type": "function_call_output", "call_id": call_id, "output": text}


EVERY_KIND: list[Any] = [
    said("Hi"),
    {
        "role": "user",
        "content": [{"type": "input_text", "text": "what is it?"}, {"type": "input_image", "image_url": "data:"}],
    },
    {"role": "developer", "content": "be brief"},
    {"role": "system", "content": "be kind", "type": "message"},
    reasoning("rs_1"),
    {**reasoning("rs_2"), "encrypted_content": "gAAA", "content": None, "status": None},
    call("c1", "fc_1"),
    output("c1", "snow"),
    {"type": "function_call_output", "call_id": "c1", "output": [{"type": "input_text", "text": "as parts"}]},
    {"type": "web_search_call", "id": "ws_1", "status": "completed", "action": {"type": "search", "query": "Oslo"}},
    {"type": "computer_call", "id": "cu_1", "call_id": "c2", "status": "completed", "pending_safety_checks": []},
    {"type": "computer_call_output", "call_id": "c2", "output": {"type": "computer_screenshot", "image_url": "data:"}},
    {"type": "mcp_list_tools", "id": "mcpl_1", "server_label": "db", "tools": []},
    {"type": "mcp_approval_request", "id": "mcpr_1", "server_label": "db", "name": "drop", "arguments": "{}"},
    {"type": "mcp_approval_response", "approval_request_id": "mcpr_1", "approve": False},
    {"type": "image_generation_call", "id": "ig_1", "status": "completed", "result": "iVBOR"},
    {
        "type": "code_interpreter_call",
        "id": "ci_1",
        "container_id": "x",
        "code": "1 + 1",
        "outputs": None,
        "status": "completed",
    },
    {
        "type": "local_shell_call",
        "id": "ls_1",
        "call_id": "c3",
        "action": {"type": "exec", "command": ["ls"], "env": {}},
    },
    {"type": "local_shell_call_output", "id": "c3", "output": "total 0"},
    {"type": "tool_search_call", "call_id": "c4", "arguments": {"query": "weather"}, "execution": "client"},
    {"type": "tool_search_output", "call_id": "c4", "tools": [], "execution": "client"},
    {"type": "item_reference", "id": "msg_9"},
    {"type": "compaction", "id": "cmp_1", "encrypted_content": "gAAA"},
    {"type": "custom_tool_call", "call_id": "c5", "name": "sql", "input": "SELECT '\u0000 \U0001f40b'"},
    {"type": "custom_tool_call_output", "call_id": "c5", "output": ""},
    {"type": "of_the_future", "nested": {"deep": [[{"a": None, "b": 1.5, "c": True, "d": 10**15}]]}},
    reply("Bye", "msg_1"),
    {"role": "assistant", "content": ""},
]
"""One of each, and what is odd about some."""
