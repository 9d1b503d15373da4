"""What was saved is restored, not validated again; what no field says is kept; what would be lost is refused."""

import collections
import dataclasses
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import pytest
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    HttpUrl,
    PlainSerializer,
    PrivateAttr,
    RootModel,
    SecretStr,
    field_serializer,
    field_validator,
    model_serializer,
    model_validator,
)
from typing_extensions import TypedDict

from agent_service.context.interface import ContextStore
from agent_service.context.memory import InMemoryContextStore
from agent_service.context.redis import RedisContextStore
from agent_service.core.errors import StateStoreError
from agent_service.state.evolution import register_upgrader
from agent_service.state.file import FileStateStore
from agent_service.state.models import AgentContext, ChatMessage, CoachContext, UserProfile
from agent_service.state.over_context import ContextStateStore


def to_cents(value: Any) -> int:
    return round(Decimal(str(value)) * 100)


class Stage(Enum):
    NEW = "new"
    PAID = ("paid", 1)


class Priced(BaseModel):
    price: int

    @field_validator("price", mode="before")
    @classmethod
    def in_cents(cls, value: Any) -> int:
        return to_cents(value)


class Balanced(BaseModel):
    """Its serializer undoes its validator."""

    price: Annotated[int, BeforeValidator(to_cents)]

    @field_serializer("price")
    def as_text(self, value: int) -> str:
        return str(Decimal(value) / 100)


class Lossy(BaseModel):
    name: Annotated[str, PlainSerializer(lambda _: "hidden")]
    also: Annotated[list[str], AfterValidator(lambda names: [*names, "validated"])] = []


class Ratio:
    """A class the codec does not know."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Ratio) and other.text == self.text

    __hash__ = None  # type: ignore[assignment]


class Measured(BaseModel):
    model_config = ConfigDict(arbitrary_types_allowed=True)
    ratio: Annotated[Ratio, BeforeValidator(lambda given: given if isinstance(given, Ratio) else Ratio(given))]
    price: Annotated[int, BeforeValidator(to_cents)] = 0

    @field_serializer("ratio")
    def as_text(self, value: Ratio) -> str:
        return value.text


class Whole(BaseModel):
    price: int

    @model_validator(mode="before")
    @classmethod
    def read(cls, data: Any) -> Any:
        return {"price": int(data) * 2} if isinstance(data, str) else data

    @model_serializer
    def write(self) -> str:
        return str(self.price)


class Remembering(BaseModel):
    name: str = "a"
    nick: str | None = None
    _seen: int = PrivateAttr(0)
    _when: datetime | None = PrivateAttr(None)


class Counting(BaseModel):
    log: list[str] = []

    @model_validator(mode="after")
    def remember(self) -> "Counting":
        self.log = [*self.log, "validated"]
        return self


class Cat(BaseModel):
    kind: Literal["cat"] = "cat"
    lives: int = 9


class Dog(BaseModel):
    kind: Literal["dog"] = "dog"
    lives: int = 1


@dataclasses.dataclass
class Doubling:
    x: int

    def __post_init__(self) -> None:
        self.x *= 2
        self.helper = [self.x]


@dataclasses.dataclass
class Point:
    x: int
    y: Any = None


@dataclasses.dataclass(frozen=True)
class Fixed:
    x: int


class Typed(TypedDict):
    one: Remembering
    other: Any


class Pair(NamedTuple):
    left: Stage
    right: int


class Words(RootModel[list[str]]):
    pass


class Everything(AgentContext[Stage, Remembering]):
    current_state: Stage = Stage.NEW
    priced: Priced | None = None
    balanced: list[Balanced] = Field(default_factory=list)
    lossy: Lossy | None = None
    measured: dict[str, Measured] = Field(default_factory=dict)
    whole: Whole | None = None
    counting: Counting | None = None
    pets: list[Annotated[Cat | Dog, Field(discriminator="kind")]] = Field(default_factory=list)
    doubling: Doubling | None = None
    points: tuple[Point, ...] = ()
    pair: Pair | None = None
    words: Words | None = None
    queue: collections.deque[Point] = Field(default_factory=collections.deque)
    ordered: collections.OrderedDict[str, Remembering] = Field(default_factory=collections.OrderedDict)
    url: HttpUrl | None = None
    folder: Path | None = None
    price: int = 0
    _turns: int = PrivateAttr(0)
    _last: tuple[int, ...] = PrivateAttr(())

    @field_validator("price", mode="before")
    @classmethod
    def in_cents(cls, value: Any) -> int:
        return to_cents(value)


def seen(value: Remembering, n: int) -> Remembering:
    value._seen = n
    value._when = datetime(2026, 1, 1, tzinfo=UTC)
    return value


def full() -> Everything:
    context = Everything(
        user_id="a",
        current_state=Stage.PAID,
        user_profile=seen(Remembering(), 5),
        conversation_history=[
            ChatMessage(role="user", content="x"),
            ChatMessage(role="user", content="y", metadata={}),
        ],
        priced=Priced(price="1.50"),
        balanced=[Balanced(price="1.50"), Balanced(price=2)],
        lossy=Lossy(name="real"),
        measured={"m": Measured(ratio="1:2", price="2.50")},
        whole=Whole(price=3),
        counting=Counting(),
        pets=[Dog(), Cat(lives=7)],
        doubling=Doubling(1),
        points=(Point(1), Point(2, {"k": [None]})),
        pair=Pair(Stage.NEW, 1),
        words=Words(["a"]),
        queue=collections.deque([Point(1)], maxlen=3),
        ordered=collections.OrderedDict(b=seen(Remembering(), 1), a=Remembering(nick="n")),
        url="https://a.org",
        folder="/srv",
        price="1.50",
    )
    context._turns, context._last = 3, (1, 2)
    return context


def state(value: Any) -> Any:
    """Everything that can tell two contexts apart, but for the version."""
    kind = type(value)
    if isinstance(value, BaseModel):
        names = [(name, state(each)) for name, each in vars(value).items() if name != "version"]
        return kind, names, value.model_fields_set - {"version"}, state(value.__pydantic_private__)
    if dataclasses.is_dataclass(value):
        return kind, [(name, state(each)) for name, each in vars(value).items()]
    if isinstance(value, Ratio):
        return kind, value.text
    if isinstance(value, dict):
        return kind, [(name, state(each)) for name, each in value.items()]
    if isinstance(value, list | tuple | collections.deque):
        return kind, [state(each) for each in value]
    return kind, repr(value)


@pytest.fixture(params=["memory", "redis"])
def contexts(request: pytest.FixtureRequest) -> ContextStore:
    """Where contexts are kept."""
    if request.param == "memory":
        return InMemoryContextStore()
    return RedisContextStore(url=request.getfixturevalue("redis_url"), prefix="restored")


async def test_a_context_is_the_same_after_any_number_of_saves_and_loads(contexts: ContextStore):
    async with contexts:
        store = ContextStateStore(contexts, model=Everything)
        context = full()
        before = state(context)
        states = []

        await store.save_context(context)
        for _ in range(3):
            loaded = await store.load_context("a")
            assert loaded is not None
            states.append(state(loaded))
            await store.save_context(loaded, expected_version=loaded.version)

        assert states == [before] * 3
        assert state(context) == before


async def test_no_code_of_a_model_runs_when_it_is_saved_or_loaded():
    ran: list[str] = []

    class Noisy(CoachContext):
        a: int = 1

        @model_validator(mode="before")
        @classmethod
        def before(cls, data: Any) -> Any:
            ran.append("before")
            return data

        @field_serializer("a")
        def write(self, value: int) -> int:
            ran.append("serializer")
            return value

        def model_post_init(self, _: Any) -> None:
            ran.append("post")

    store = ContextStateStore(InMemoryContextStore(), model=Noisy)
    context = Noisy(user_id="a", a=2)
    ran.clear()

    await store.save_context(context)
    loaded = await store.load_context("a")

    assert loaded == context
    assert ran == []


async def test_a_context_stored_by_the_first_release_is_not_validated_either():
    class Shop(AgentContext[str, Remembering]):
        current_state: str = "open"
        price: int
        balanced: Balanced
        url: Annotated[HttpUrl, PlainSerializer(str)]

        @field_validator("price", mode="before")
        @classmethod
        def in_cents(cls, value: Any) -> int:
            return to_cents(value)

    contexts = InMemoryContextStore()
    stored = {
        "user_id": "a",
        "current_state": "open",
        "conversation_history": [
            {"role": "u", "content": "", "timestamp": datetime(2026, 1, 1, tzinfo=UTC), "metadata": {}}
        ],
        "consolidated_summary": "",
        "user_profile": {"name": "Ada", "nick": None},
        "metadata": {"n": 1},
        "price": 150,
        "balanced": {"price": "1.5"},
        "url": "https://a.org/",
        "version": 4,
        "schema_version": 1,
    }
    await contexts.set("a", stored)
    store = ContextStateStore(contexts, model=Shop)

    first = await store.load_context("a")
    assert first is not None
    await store.save_context(first)
    second = await store.load_context("a")

    assert (first.price, first.balanced.price, str(first.url)) == (150, 150, "https://a.org/")
    assert second == first
    assert (second.user_profile, second.version) == (Remembering(name="Ada"), 5)


# -- classes that have changed since


def later(**fields: Any) -> type[AgentContext[Any, Any]]:
    """The class Early in a later release."""
    annotations = {name: each[0] for name, each in fields.items()}
    defaults = {name: each[1] for name, each in fields.items() if len(each) > 1}
    body = {"__annotations__": annotations, "__module__": __name__, **defaults}
    return type("Early", (AgentContext[str, Remembering],), body)


class Early(AgentContext[str, Remembering]):
    current_state: str = "x"
    price: Annotated[int, BeforeValidator(to_cents)] = 0
    _turns: int = PrivateAttr(0)


STATE = {"current_state": (str, "x")}
PRICE = {"price": (Annotated[int, BeforeValidator(to_cents)], 0)}


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (later(**STATE, **PRICE, added=(int, 7)), {"price": 150, "added": 7}),
        (later(**STATE, **PRICE, added=(list[int], Field(default_factory=lambda: [1]))), {"price": 150, "added": [1]}),
        (later(**STATE, price=(float, 0.0)), {"price": 150}),
        (later(**STATE, price=(str | int, "")), {"price": 150}),
        (later(**STATE, price=(Decimal, Decimal(0))), {"price": Decimal(150)}),
    ],
)
async def test_a_class_that_has_changed_compatibly_takes_what_is_stored(model: Any, expected: dict[str, Any]):
    contexts = InMemoryContextStore()
    context = Early(user_id="a", price="1.50", user_profile=seen(Remembering(), 2))
    await ContextStateStore(contexts, model=Early).save_context(context)

    loaded = await ContextStateStore(contexts, model=model).load_context("a")

    assert loaded is not None
    assert {name: getattr(loaded, name) for name in expected} == expected
    assert loaded.user_profile._seen == 2
    assert "added" not in loaded.model_fields_set


class Noted(AgentContext[str, Remembering]):
    current_state: str = "x"
    one: Remembering = Field(default_factory=Remembering)
    several: dict[str, list[Remembering]] = Field(default_factory=dict)


class Untyped(AgentContext[str, Remembering]):
    current_state: str = "x"
    one: Any = None
    several: dict[str, Any] = Field(default_factory=dict)


class Open(AgentContext[str, Remembering]):
    model_config = ConfigDict(extra="allow")
    current_state: str = "x"


@pytest.mark.parametrize("model", [Untyped, Open])
async def test_a_model_that_no_annotation_names_any_more_is_its_plain_fields(model: Any):
    contexts = InMemoryContextStore()
    context = Noted(user_id="a", one=seen(Remembering(), 2), several={"k": [seen(Remembering(), 3)]})
    await ContextStateStore(contexts, model=Noted).save_context(context)
    store = ContextStateStore(contexts, model=model)
    loaded = await store.load_context("a")

    plain = Remembering().model_dump()
    assert loaded is not None
    assert (type(loaded.one), loaded.one, loaded.several) == (dict, plain, {"k": [plain]})
    await store.save_context(loaded)
    assert await store.load_context("a") == loaded


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (later(**STATE), r"price: Extra inputs are not permitted"),
        (later(**STATE, **PRICE, added=(int,)), r"added: Field required"),
        (later(**STATE, cost=(int, 0)), r"price: Extra inputs are not permitted"),
        (later(**STATE, price=(list[int], [])), r"price: Input should be a valid list"),
    ],
)
async def test_a_class_that_has_changed_otherwise_is_an_error_that_names_the_field(model: Any, said: str):
    contexts = InMemoryContextStore()
    await ContextStateStore(contexts, model=Early).save_context(Early(user_id="a", price=1))

    with pytest.raises(StateStoreError, match=said):
        await ContextStateStore(contexts, model=model).load_context("a")


async def test_an_upgrader_gets_plain_fields_and_what_it_leaves_is_restored_unvalidated():
    class Newer(AgentContext[str, Remembering]):
        current_state: str = "x"
        cost: Annotated[int, BeforeValidator(to_cents)]
        schema_version: int = 2
        _turns: int = PrivateAttr(0)

    got: list[dict[str, Any]] = []

    def upgrader(fields: dict[str, Any]) -> dict[str, Any]:
        got.append(dict(fields))
        fields["cost"] = fields.pop("price")
        return fields

    register_upgrader(Newer, 1, upgrader)
    contexts = InMemoryContextStore()
    early = Early(user_id="a", price="1.50", user_profile=seen(Remembering(), 2))
    early._turns = 9
    await ContextStateStore(contexts, model=Early).save_context(early)

    loaded = await ContextStateStore(contexts, model=Newer).load_context("a")

    assert loaded is not None
    assert (loaded.cost, loaded._turns) == (150, 9)
    assert loaded.user_profile is not None
    assert loaded.user_profile._seen == 2
    assert set(got[0]) == set(Early.model_fields)


# -- what is refused


class Tight(UserProfile):
    """Equal to its base, field by field."""


def with_private(value: Any) -> Remembering:
    profile = Remembering()
    profile._when = value
    return profile


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: CoachContext(user_id="a", user_profile=Tight()), r"user_profile.*Tight.*UserProfile"),
        (lambda: _everything(user_profile=with_private(threading.Lock())), r"_when.*lock"),
        (lambda: _everything(user_profile=with_private(Point(1))), r"user_profile.*_when.*Point"),
        (lambda: _everything(metadata={"lock": threading.Lock()}), r"\['metadata'\]\['lock'\].*lock"),
        (lambda: _everything(metadata={"secret": SecretStr("hush")}), r"\['metadata'\]\['secret'\].*secrets"),
    ],
)
async def test_what_would_be_lost_is_not_saved(make: Callable[[], Any], said: str):
    context = make()
    store = ContextStateStore(InMemoryContextStore(), model=type(context))

    with pytest.raises(StateStoreError, match=said) as caught:
        await store.save_context(context)

    assert await store.load_context("a") is None
    assert "hush" not in str(caught.value)


def _everything(**fields: Any) -> Everything:
    return Everything(user_id="a", **fields)


class Mixed(AgentContext[Stage, Remembering]):
    current_state: Stage = Stage.NEW
    either: Remembering | dict[str, int] | None = None
    typed: Typed | None = None
    several: set[Fixed] = Field(default_factory=set)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"either": seen(Remembering(), 2)}, seen(Remembering(), 2)),
        ({"either": {"other": 1}}, {"other": 1}),
        ({"typed": {"one": seen(Remembering(), 2), "other": [1]}}, {"one": seen(Remembering(), 2), "other": [1]}),
        (
            {"typed": {"one": Remembering(), "other": Remembering()}},
            {"one": Remembering(), "other": {"name": "a", "nick": None}},
        ),
    ],
)
async def test_models_beside_plain_data_come_back_where_they_are_declared(fields: dict[str, Any], expected: Any):
    store = ContextStateStore(InMemoryContextStore(), model=Mixed)

    await store.save_context(Mixed(user_id="a", **fields))
    loaded = await store.load_context("a")

    assert loaded is not None
    assert [state(getattr(loaded, name)) for name in fields] == [state(expected)]


async def test_a_set_of_records_is_refused_with_the_remedy():
    store = ContextStateStore(InMemoryContextStore(), model=Mixed)

    with pytest.raises(StateStoreError, match=r"several .*not hashable; register_type"):
        await store.save_context(Mixed(user_id="a", several={Fixed(1)}))


async def test_what_says_nothing_more_is_stored_as_the_first_release_stored_it(tmp_path: Path):
    context = CoachContext(
        user_id="ada",
        current_state=CoachContext.model_fields["current_state"].default,
        conversation_history=[
            ChatMessage(role="user", content="x", timestamp=datetime(2026, 1, 1, tzinfo=UTC), metadata={})
        ],
        consolidated_summary="",
        user_profile=UserProfile(name="Ada", goals=[], metadata={}),
        metadata={},
        version=0,
        schema_version=1,
    )
    async with FileStateStore(tmp_path) as store:
        await store.save_context(context)

    assert b"$rest" not in (tmp_path / "ada.json").read_bytes()
    assert b'"user_profile":{"name":"Ada","goals":[],"metadata":{}}' in (tmp_path / "ada.json").read_bytes()
