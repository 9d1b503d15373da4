"""Models: what a context takes, what is kept of it, and how older shapes are brought up to date."""

from datetime import UTC, datetime
from enum import Enum, IntEnum
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PlainSerializer,
    SecretStr,
    ValidationError,
    computed_field,
    field_serializer,
    field_validator,
)
from pydantic_core import PydanticSerializationError

from agent_service.context.memory import InMemoryContextStore
from agent_service.core.errors import ConfigurationError, StateStoreError
from agent_service.state.evolution import register_upgrader
from agent_service.state.file import FileStateStore
from agent_service.state.memory import InMemoryStateStore
from agent_service.state.models import AgentContext, ChatMessage, CoachContext, CoachingState, UserProfile
from agent_service.state.over_context import ContextStateStore


class Step(IntEnum):
    ONE = 1
    TWO = 2


class Strict(BaseModel):
    model_config = ConfigDict(strict=True, serialize_by_alias=True)

    step: Step = Field(alias="currentStep")
    answer: int | str = "42"
    shout: Annotated[str, PlainSerializer(str.upper)] = "ABC"
    hidden: int = Field(default=1, exclude=True)

    @computed_field  # type: ignore[prop-decorator]
    @property
    def next(self) -> int:
        return self.step + 1


class Quiz(AgentContext[Literal["open", "closed"], Strict]):
    kinds: set[Step] = Field(default_factory=set)


def test_assignments_are_validated_and_slips_of_the_pen_refused():
    context = CoachContext(user_id="a", current_state="action_planning")

    assert context.current_state is CoachingState.ACTION_PLANNING
    with pytest.raises(ValidationError):
        context.current_state = "no such state"  # type: ignore[assignment]
    with pytest.raises(ValidationError):
        CoachContext(user_id="a", curent_state=CoachingState.ACCOUNTABILITY)  # type: ignore[call-arg]


def test_an_invalid_value_is_not_repeated_in_the_error():
    with pytest.raises(ValidationError) as caught:
        ChatMessage(role="user", content=["secret"])

    assert "secret" not in str(caught.value)


def test_messages_know_when_they_were_made():
    first, second = ChatMessage(role="user", content=""), ChatMessage(role="user", content="")

    assert first.timestamp.tzinfo is UTC
    assert first.timestamp <= second.timestamp


async def test_strict_models_enums_aliases_serializers_and_computed_fields_come_back():
    store = InMemoryStateStore(model=Quiz)
    context = Quiz(
        user_id="a",
        current_state="open",
        user_profile=Strict(currentStep=Step.TWO),
        kinds={Step.ONE},
        metadata={"s": 1},
    )

    await store.save_context(context)

    assert await store.load_context("a") == context


async def test_what_has_no_stored_form_is_refused_by_name():
    class Account(BaseModel):
        password: SecretStr

    class Vault(AgentContext[str, Account]):
        pass

    store = InMemoryStateStore(model=Vault)
    vault = Vault(user_id="a", current_state="", user_profile=Account(password=SecretStr("hunter2")))

    with pytest.raises(StateStoreError, match=r"\['user_profile'\]\['password'\].*SecretStr") as caught:
        await store.save_context(vault)
    assert "hunter2" not in str(caught.value)


async def test_a_message_or_profile_of_a_subclass_is_refused_instead_of_cut():
    class ToolMessage(ChatMessage):
        tool: str

    class RichProfile(UserProfile):
        age: int

    store = InMemoryStateStore()

    with pytest.raises(StateStoreError, match=r"conversation_history\.0\.tool"):
        await store.save_context(
            CoachContext(user_id="a", conversation_history=[ToolMessage(role="tool", content="", tool="x")])
        )
    with pytest.raises(StateStoreError, match=r"user_profile\.age"):
        await store.save_context(CoachContext(user_id="a", user_profile=RichProfile(age=3)))


async def test_code_of_a_model_that_fails_is_a_state_store_error():
    class Fragile(CoachContext):
        handle: Any = None

        @field_serializer("handle")
        def write(self, _: Any) -> str:
            raise KeyError("x")

        @field_validator("handle", mode="before")
        @classmethod
        def read(cls, given: Any) -> Any:
            return {}[given] if given == "stored" else given

    contexts = InMemoryContextStore()
    store = ContextStateStore(contexts, model=Fragile)

    with pytest.raises(StateStoreError, match="PydanticSerializationError") as saving:
        await store.save_context(Fragile(user_id="a", handle=object()))
    await contexts.set("a", {"user_id": "a", "handle": "stored", "version": 1})
    with pytest.raises(StateStoreError, match="KeyError") as loading:
        await store.load_context("a")

    assert isinstance(saving.value.__cause__, PydanticSerializationError)
    assert isinstance(loading.value.__cause__, KeyError)


async def test_a_frozen_model_learns_its_version_too():
    class Frozen(CoachContext):
        model_config = ConfigDict(frozen=True)

    store, context = InMemoryStateStore(model=Frozen), Frozen(user_id="a")

    await store.save_context(context, expected_version=0)
    await store.save_context(context, expected_version=context.version)

    assert context.version == 2
    assert await store.load_context("a") == context


@pytest.mark.parametrize("model", [dict, BaseModel, "CoachContext", CoachContext(user_id="a"), UserProfile], ids=repr)
def test_what_is_no_model_of_a_context_is_refused(model: Any):
    with pytest.raises(ConfigurationError, match="AgentContext"):
        InMemoryStateStore(model=model)


def test_a_model_without_a_schema_version_is_refused():
    class Unnumbered(CoachContext):
        schema_version: int

    with pytest.raises(ConfigurationError, match="schema_version"):
        InMemoryStateStore(model=Unnumbered)


# -- evolution


class Stage(Enum):
    NEW = "new"


class Grown(AgentContext[Stage, UserProfile]):
    schema_version: int = 3


async def _stored(document: dict[str, Any]) -> ContextStateStore[Grown]:
    contexts = InMemoryContextStore()
    await contexts.set("a", {"user_id": "a", "current_state": "new", "version": 4, **document})
    return ContextStateStore(contexts, model=Grown)


async def test_a_missing_upgrader_is_named_with_the_remedy():
    store = await _stored({"schema_version": 2})

    with pytest.raises(StateStoreError, match=r"'a'.*register_upgrader\(Grown, 2, function\)"):
        await store.load_context("a")


async def test_upgraders_run_in_turn_from_what_is_stored_and_those_of_a_base_are_inherited():
    class Base(AgentContext[Stage, UserProfile]):
        schema_version: int = 3

    class Derived(Base):
        pass

    register_upgrader(Base, 1, lambda fields: fields | {"metadata": {"steps": [1]}})
    register_upgrader(Base, 2, lambda fields: fields | {"metadata": {"steps": [*fields["metadata"]["steps"], 2]}})
    contexts = InMemoryContextStore()
    await contexts.set("a", {"user_id": "a", "current_state": "new", "version": 4})

    found = await ContextStateStore(contexts, model=Derived).load_context("a")

    assert found is not None
    assert (found.metadata, found.version, found.schema_version) == ({"steps": [1, 2]}, 4, 3)
    assert (await contexts.get("a") or {}).get("schema_version") is None


async def test_an_upgrader_of_the_class_itself_goes_before_that_of_its_base():
    class Base(AgentContext[Stage, UserProfile]):
        schema_version: int = 2

    class Derived(Base):
        pass

    register_upgrader(Base, 1, lambda fields: fields | {"metadata": {"of": "base"}})
    register_upgrader(Derived, 1, lambda fields: fields | {"metadata": {"of": "derived"}})
    contexts = InMemoryContextStore()
    await contexts.set("a", {"user_id": "a", "current_state": "new", "version": 4})

    found = {model: await ContextStateStore(contexts, model=model).load_context("a") for model in (Base, Derived)}

    assert {model: each and each.metadata["of"] for model, each in found.items()} == {Base: "base", Derived: "derived"}


async def test_an_upgrader_changes_neither_whose_a_context_is_nor_its_version():
    class Taken(AgentContext[Stage, UserProfile]):
        schema_version: int = 2

    register_upgrader(Taken, 1, lambda fields: fields | {"user_id": "b", "version": 99, "schema_version": 7})
    contexts = InMemoryContextStore()
    await contexts.set("a", {"user_id": "a", "current_state": "new", "version": 4})

    found = await ContextStateStore(contexts, model=Taken).load_context("a")

    assert found is not None
    assert (found.user_id, found.version, found.schema_version) == ("a", 4, 2)


async def test_a_context_stored_by_the_first_release_loads(tmp_path: Path):
    stored = (
        b'"ada"\n{"user_id":"ada","current_state":"identity_refinement","conversation_history":[{"role":"user","content":'
        b'"Hello","timestamp":{"$datetime":"2026-01-02T03:04:05+00:00"},"metadata":{"ids":{"$tuple":[1,2]}}}],'
        b'"consolidated_summary":"so far","user_profile":{"name":"Ada","goals":["x"],"metadata":{}},"metadata":{},'
        b'"version":7,"schema_version":1}\n'
    )
    (tmp_path / "ada.json").write_bytes(stored)
    store = FileStateStore(tmp_path)

    found = await store.load_context("ada")

    assert found == CoachContext(
        user_id="ada",
        current_state=CoachingState.IDENTITY_REFINEMENT,
        conversation_history=[
            ChatMessage(
                role="user",
                content="Hello",
                timestamp=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
                metadata={"ids": (1, 2)},
            )
        ],
        consolidated_summary="so far",
        user_profile=UserProfile(name="Ada", goals=["x"]),
        version=7,
    )
    await store.save_context(found, expected_version=7)
    _, document = stored.split(b"\n", 1)  # the key has a line of its own no more
    assert (tmp_path / "ada.json").read_bytes() == document.replace(b'"version":7', b'"version":8')


async def test_an_upgrader_that_fails_or_gives_nonsense_is_an_error():
    class Failing(AgentContext[Stage, UserProfile]):
        schema_version: int = 2

    class Nonsense(AgentContext[Stage, UserProfile]):
        schema_version: int = 2

    register_upgrader(Failing, 1, lambda fields: fields["missing"])
    register_upgrader(Nonsense, 1, lambda fields: fields.clear())  # type: ignore[arg-type, return-value]
    contexts = InMemoryContextStore()
    await contexts.set("a", {"user_id": "a", "current_state": "new", "version": 4})

    with pytest.raises(StateStoreError, match=r"'a'.*Failing from version 1.*KeyError") as caught:
        await ContextStateStore(contexts, model=Failing).load_context("a")
    with pytest.raises(StateStoreError, match=r"'a'.*NoneType"):
        await ContextStateStore(contexts, model=Nonsense).load_context("a")

    assert isinstance(caught.value.__cause__, KeyError)


@pytest.mark.parametrize("version", [0, 4, -1, True, "1", None], ids=repr)
async def test_an_unknown_schema_version_is_an_error(version: Any):
    store = await _stored({"schema_version": version})

    with pytest.raises(StateStoreError, match=r"'a'.*schema_version is"):
        await store.load_context("a")


@pytest.mark.parametrize("version", [0, 3, True, "1"], ids=repr)
def test_an_upgrader_beyond_the_models_schema_version_is_refused(version: Any):
    with pytest.raises(ConfigurationError, match="from_version must be an int from 1 to 2"):
        register_upgrader(Grown, version, dict)


def test_a_second_upgrader_for_one_version_is_refused_and_the_same_again_is_not():
    class Twice(AgentContext[Stage, UserProfile]):
        schema_version: int = 2

    register_upgrader(Twice, 1, dict)
    register_upgrader(Twice, 1, dict)

    with pytest.raises(ConfigurationError, match="Twice"):
        register_upgrader(Twice, 1, lambda fields: fields)


@pytest.mark.parametrize("version", [None, 0, -1, True, "1"], ids=repr)
async def test_data_without_a_version_is_not_overwritten(version: Any):
    contexts = InMemoryContextStore()
    await contexts.set("a", {"user_id": "a", "version": version})
    store = ContextStateStore(contexts)

    with pytest.raises(StateStoreError, match=r"'a'.*version"):
        await store.save_context(CoachContext(user_id="a"))

    assert await contexts.get("a") == {"user_id": "a", "version": version}


async def test_keys_that_are_no_text_are_no_users():
    contexts = InMemoryContextStore()
    await contexts.set(("column", "a"), {})
    store = ContextStateStore(contexts)
    await store.save_context(CoachContext(user_id="a"))

    assert await store.list_user_ids() == ["a"]
