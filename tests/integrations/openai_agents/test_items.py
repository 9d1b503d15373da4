"""Under which role and which identity an item is stored."""

import subprocess
import sys
from typing import Any

import pytest

from agent_service.integrations.openai_agents.items import client_id_of, client_ids_of, role_of
from tests.integrations.openai_agents.samples import EVERY_KIND, call, output, reasoning, reply, said


@pytest.mark.parametrize(
    ("item", "role"),
    [
        (said("x"), "user"),
        ({"role": "developer", "content": "x"}, "developer"),
        (reply("x"), "assistant"),
        (reasoning("rs"), "assistant"),
        (call("c"), "assistant"),
        (output("c"), "tool"),
        ({"type": "computer_call_output"}, "tool"),
        ({"type": "tool_search_output"}, "tool"),
        ({"type": "mcp_approval_request"}, "assistant"),
        ({"type": "mcp_approval_response"}, "user"),
        ({"type": "compaction"}, "assistant"),
        ({"type": None, "role": None}, "assistant"),
        ({"role": ""}, "assistant"),
        ({}, "assistant"),
    ],
)
def test_the_role_is_the_items_own_or_what_its_type_means(item: Any, role: str) -> None:
    assert role_of(item) == role


def test_the_identity_is_the_id_and_the_content() -> None:
    one = client_id_of(reply("x", "msg_1"))

    assert one is not None
    assert one.startswith("msg_1#")
    assert one == client_id_of(dict(reversed(reply("x", "msg_1").items())))
    assert one != client_id_of(reply("y", "msg_1"))
    assert one != client_id_of(reply("x", "msg_2"))


@pytest.mark.parametrize(
    "item",
    [
        said("x"),
        output("c1"),
        call("c1"),
        {**call("c1"), "id": "c1"},
        {**call("c1"), "id": "__fake_id__"},
        {**call("c1"), "id": ""},
        {**call("c1"), "id": 7},
        {**call("c1", "fc_1"), "bad": {1}},
    ],
)
def test_an_item_without_an_id_of_its_own_has_no_identity(item: Any) -> None:
    assert client_id_of(item) is None


def test_an_identity_is_an_identifier_whatever_the_id_is() -> None:
    odd = ["x" * 1000, "x" * 1001, "é", "\x00", "\ud800", "a b"]
    found = [client_id_of(reply("x", each)) for each in odd]

    assert len(set(found)) == len(odd)
    for each in found:
        assert each is not None
        assert 0 < len(each) <= 255
        assert each.isprintable()


def test_an_output_takes_its_identity_from_its_call() -> None:
    known = client_ids_of([said("x"), call("c1", "fc_1"), output("c1"), output("c2"), {**output("c1"), "id": "o1"}])

    assert [each and each.split("#")[0] for each in known] == [None, "fc_1", "fc_1", None, "o1"]
    assert known[2] != known[1]
    assert known[2] != client_ids_of([call("c1", "fc_2"), output("c1")])[1]
    assert client_ids_of([{**call("c1"), "id": "__fake_id__"}, output("c1")]) == [None, None]
    assert len({each for each in client_ids_of(EVERY_KIND) if each}) == sum(map(bool, client_ids_of(EVERY_KIND)))


def test_the_sdk_is_imported_late_and_without_it_everything_but_items_says_how_to_get_it() -> None:
    program = """
import sys
from agent_service.integrations.openai_agents import DatabaseSession
DatabaseSession("chat", user_id="ada")
print("agents" in sys.modules)
for name in [each for each in sys.modules if each.startswith("agent_service.integrations.openai_agents")]:
    del sys.modules[name]
sys.modules["agents"] = None
from agent_service.integrations.openai_agents.items import role_of
from agent_service.integrations import openai_agents
print(role_of({"type": "reasoning"}))
try:
    sys.modules["agent_service.integrations.openai_agents"].DatabaseSession
except ImportError as exc:
    print(exc)
try:
    openai_agents.unknown
except AttributeError as exc:
    print(exc)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert done.stdout.splitlines() == [
        "False",
        "assistant",
        'DatabaseSession needs openai-agents: pip install "agent-service[openai-agents]"',
        "module 'agent_service.integrations.openai_agents' has no attribute 'unknown'",
    ]
