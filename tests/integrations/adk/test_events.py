"""Events as documents, and their names. No database."""

import sys
from importlib import import_module
from typing import Any

import pytest
from google.adk.events.event import Event
from google.adk.events.event_actions import EventActions
from google.genai import types
from hypothesis import given, settings
from hypothesis import strategies as st

from agent_service.core.errors import SessionValueError, UndecodableError
from agent_service.infrastructure.database.append.message import accept_message
from agent_service.integrations.adk.events import client_id_of, document_of, event_of, role_of
from agent_service.integrations.adk.identity import app_key, own_id, session_key, user_key
from agent_service.integrations.adk.scopes import merged, split
from tests.integrations.adk.said import said
from tests.support.depth import examples

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=5,
)
OBJECT = st.dictionaries(TEXT, JSON, max_size=3)
PARTS = st.one_of(
    st.builds(
        types.Part, text=TEXT, thought=st.none() | st.booleans(), thought_signature=st.none() | st.binary(max_size=6)
    ),
    st.builds(types.Blob, data=st.binary(max_size=8), mime_type=st.just("image/png")).map(
        lambda b: types.Part(inline_data=b)
    ),
    st.builds(types.FunctionCall, id=TEXT, name=TEXT, args=OBJECT).map(lambda call: types.Part(function_call=call)),
    st.builds(types.FunctionResponse, id=TEXT, name=TEXT, response=OBJECT).map(
        lambda response: types.Part(function_response=response)
    ),
)
CONTENTS = st.builds(types.Content, role=st.sampled_from(["user", "model"]), parts=st.lists(PARTS, max_size=3))
ACTIONS = st.builds(
    EventActions,
    state_delta=st.dictionaries(TEXT.filter(lambda key: not key.startswith("temp:")), JSON, max_size=3),
    artifact_delta=st.dictionaries(TEXT, st.integers(0, 9), max_size=2),
    transfer_to_agent=st.none() | TEXT,
    escalate=st.none() | st.booleans(),
    rewind_before_invocation_id=st.none() | TEXT,
)
EVENTS = st.builds(
    Event,
    author=TEXT,
    invocation_id=TEXT,
    content=st.none() | CONTENTS,
    actions=ACTIONS,
    branch=st.none() | TEXT,
    long_running_tool_ids=st.none() | st.sets(TEXT, max_size=3),
    custom_metadata=st.none() | OBJECT,
    error_message=st.none() | TEXT,
    timestamp=st.floats(0, 1e12),
)


@given(EVENTS)
@settings(max_examples=examples(60, 2000))
def test_an_event_is_its_document(event: Event):
    document = document_of(event)

    assert event_of(document) == event
    assert accept_message("0" * 32, document, role=role_of(event)).data == document
    assert client_id_of(document_of(event_of(document))) == client_id_of(document)


def test_events_that_differ_have_other_ids():
    first = said("1", id="same", timestamp=1.0)
    second = said("2", id="same", timestamp=1.0)

    assert client_id_of(document_of(first)) != client_id_of(document_of(second))
    assert client_id_of(document_of(first)) == client_id_of(document_of(first.model_copy(deep=True)))


def test_the_id_of_an_event_stays_the_same_in_every_version():
    """It is stored: with another one, an event that is delivered again after an upgrade would be stored twice."""
    document = {"id": "e1", "author": "ada", "timestamp": 1.5, "actions": {"state_delta": {"\u00e9": [1, None, 2**70]}}}

    assert (
        client_id_of({"id": "e1", "author": "ada", "timestamp": 1.5})
        == "5fa7812192410924d9b1036c76f1cc03a25ce59d3c5926a4"
    )
    assert client_id_of(document) == "c5aa5b9d801423b552f2837481ab372065bc636bdb1faa9d"
    assert client_id_of(dict(reversed(document.items()))) == "c5aa5b9d801423b552f2837481ab372065bc636bdb1faa9d"


def test_state_for_this_invocation_is_left_out_and_the_event_is_not_changed():
    event = said(state={"temp:a": object(), "b": 1})

    assert document_of(event)["actions"]["state_delta"] == {"b": 1}
    assert set(event.actions.state_delta) == {"temp:a", "b"}


@pytest.mark.parametrize(
    ("event", "role"),
    [
        (said(author="user"), "user"),
        (said(author="clerk"), "assistant"),
        (Event(author="clerk"), "assistant"),
        (
            Event(
                author="clerk",
                content=types.Content(
                    role="user",
                    parts=[types.Part(function_response=types.FunctionResponse(id="c", name="f", response={}))],
                ),
            ),
            "tool",
        ),
    ],
)
def test_events_have_roles(event: Event, role: str):
    assert role_of(event) == role


def test_what_is_no_event_is_refused_without_its_content():
    with pytest.raises(SessionValueError, match="must be an ADK Event, not dict"):
        document_of({"author": "ada"})  # type: ignore[arg-type]
    with pytest.raises(UndecodableError, match=r"timestamp \(float_parsing\)") as raised:
        event_of({"timestamp": "secret"})
    assert "secret" not in f"{raised.value}{raised.value.__cause__}"


def test_a_value_without_a_form_is_named():
    with pytest.raises(SessionValueError, match=r"state_delta\['f'\] is a builtin_function_or_method"):
        document_of(said(state={"f": print}))


@given(
    st.dictionaries(st.sampled_from(["a", "app:a", "user:a", "temp:a", "app:user:a", ":a", "other:a"]), st.integers())
)
def test_state_is_split_by_scope_and_merged_again(state: dict[str, int]):
    assert merged(split(state)) == {key: value for key, value in state.items() if not key.startswith("temp:")}


def test_names_of_sessions_and_state_are_told_apart():
    assert session_key("support", "ada", "chat 1") == "support/ada/chat%201"
    assert len({session_key(*each) for each in (("a", "b/c", "d"), ("a/b", "c", "d"), ("a", "b", "c/d"))}) == 3
    assert len({app_key("", "a"), app_key("a", ""), user_key("", "a", "b"), user_key("a", "b", "")}) == 4
    assert own_id(" s1 ") == "s1"


def test_without_adk_the_room_says_what_to_install(monkeypatch: pytest.MonkeyPatch):
    for name in [each for each in sys.modules if each.startswith("agent_service.integrations.adk")]:
        monkeypatch.delitem(sys.modules, name)
    missing: Any = None
    monkeypatch.setitem(sys.modules, "google.adk.sessions", missing)

    with pytest.raises(ImportError, match=r'pip install "agent-service\[adk\]"'):
        import_module("agent_service.integrations.adk")
