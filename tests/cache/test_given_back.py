"""What a decorated function returned comes back as it was: from the first call on, from memory and from Redis."""

import abc
import asyncio
import collections
import dataclasses
import enum
import functools
import itertools
import math
import re
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from decimal import Decimal
from ipaddress import IPv4Address, IPv6Network
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, NamedTuple, NotRequired, TypedDict, TypeVar
from zoneinfo import ZoneInfo

import httpx
import pytest
import typing_extensions
from fastapi import FastAPI
from pydantic import (
    AfterValidator,
    AliasChoices,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    HttpUrl,
    PostgresDsn,
    PrivateAttr,
    RootModel,
    SecretStr,
    computed_field,
    field_serializer,
    field_validator,
    model_validator,
)
from pydantic.dataclasses import dataclass as pydantic_dataclass
from sqlalchemy import ForeignKey
from sqlalchemy.orm import DeclarativeBase, Mapped, MappedAsDataclass, mapped_column, relationship

from agent_service.core.returned import Returned
from agent_service.infrastructure.cache import cached
from agent_service.infrastructure.cache.base import BaseCache
from agent_service.infrastructure.cache.memory.cache import InMemoryCache
from agent_service.infrastructure.cache.near.cache import TieredCache
from agent_service.infrastructure.cache.near.feed import NearFeed
from agent_service.infrastructure.cache.redis.cache import RedisCache
from agent_service.infrastructure.cache.values import ValueCodec
from agent_service.infrastructure.redis.client import RedisClient

T = TypeVar("T")
AnyCache = BaseCache[Any]


@pytest.fixture(params=["memory", "redis", "copies of redis"])
async def cache(request: pytest.FixtureRequest) -> AsyncIterator[AnyCache]:
    """A cache of each kind."""
    if request.param == "memory":
        yield InMemoryCache()
        return
    client = RedisClient(request.getfixturevalue("redis_url"), timeout=5)
    redis: RedisCache[Any] = RedisCache(client, namespace="given")
    if request.param == "redis":
        yield redis
    else:
        feed = NearFeed(client)
        tiered: TieredCache[Any] = TieredCache(redis, feed)
        async with asyncio.timeout(30):
            while feed.clock() == math.inf:  # until copies are trusted
                await asyncio.sleep(0.005)
        yield tiered
        await tiered.aclose()
        await feed.aclose()
    await redis.aclose()
    await client.aclose()


def state(value: Any) -> Any:
    """Everything that can tell two values apart: classes, fields, what is no field, what is private."""
    kind = type(value)
    if isinstance(value, BaseModel):
        return (
            kind,
            [(name, state(each)) for name, each in vars(value).items()],
            value.model_fields_set,
            state(value.__pydantic_private__),
            state(value.__pydantic_extra__),
            [getattr(value, name) for name in getattr(kind, "__slots__", ()) if name == "_mark"],
        )
    if isinstance(value, enum.Enum):
        return kind, value.name, value.value
    if dataclasses.is_dataclass(value):
        names = {field.name for field in dataclasses.fields(value)} | getattr(value, "__dict__", {}).keys()
        return kind, [(name, state(getattr(value, name, "deleted"))) for name in sorted(names)]
    if isinstance(value, dict):
        return kind, [(state(name), state(each)) for name, each in value.items()]
    if isinstance(value, list | tuple | collections.deque):
        return kind, [state(each) for each in value], state(getattr(value, "__dict__", None))
    if isinstance(value, set | frozenset):
        return kind, sorted(map(repr, map(state, value)))
    return kind, repr(value)


async def calls_and_results(cache: AnyCache, annotation: Any, value: Any) -> tuple[int, list[Any]]:
    """Call a decorated function three times; how often it ran, and what was given."""
    ran = itertools.count()

    async def function() -> Any:
        next(ran)
        return value

    function.__annotations__["return"] = annotation
    decorated = cached(ttl=60, cache=cache, cache_none=True)(function)
    results = [await decorated() for _ in range(3)]
    return next(ran), results


# -- classes of every kind


class Colour(enum.Enum):
    RED = "red"
    GREEN = ("g", 1)


class Plan(enum.StrEnum):
    FREE = "free"


class Level(enum.IntEnum):
    LOW = 1


class Permission(enum.Flag):
    READ = 1
    WRITE = 2


def to_cents(value: Any) -> int:
    return round(Decimal(str(value)) * 100)


class Priced(BaseModel):
    price: int

    @field_validator("price", mode="before")
    @classmethod
    def in_cents(cls, value: Any) -> int:
        return to_cents(value)


class Annotated_(BaseModel):  # noqa: N801
    price: Annotated[int, BeforeValidator(to_cents)]
    seen: Annotated[int, AfterValidator(lambda n: n + 1)] = 0


class Accumulating(BaseModel):
    log: list[str] = []

    @model_validator(mode="after")
    def remember(self) -> "Accumulating":
        self.log = [*self.log, "validated"]
        return self


class Hashing(BaseModel):
    password: str

    @field_validator("password")
    @classmethod
    def hashed(cls, value: str) -> str:
        return f"hash({value})"


class Rewriting(BaseModel):
    total: int

    @model_validator(mode="before")
    @classmethod
    def doubled(cls, data: Any) -> Any:
        return {"total": data["total"] * 2}


class Serialised(BaseModel):
    price: int

    @field_serializer("price")
    def as_text(self, value: int) -> str:
        return f"{value / 100}"


class Nested(BaseModel):
    first: Priced
    others: list[Priced] = []
    by_name: dict[str, Priced | Hashing] = {}


class Aliased(BaseModel):
    name: str = Field(alias="userName")
    mail: str = Field("", validation_alias=AliasChoices("mail", "email"), serialization_alias="eMail")

    @computed_field
    def shout(self) -> str:
        return self.name.upper()


class Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True)
    a: int


class Open(BaseModel):
    model_config = ConfigDict(extra="allow")
    a: int = 1


class Closed(BaseModel):
    model_config = ConfigDict(extra="forbid", validate_assignment=True)
    a: int = 1


class Counting(BaseModel):
    name: str
    nick: str | None = None
    _seen: int = PrivateAttr(0)
    _born: datetime = PrivateAttr(default_factory=lambda: datetime.now(UTC))

    def model_post_init(self, _: Any) -> None:
        self._seen += 1


class Page(BaseModel, Generic[T]):
    items: list[T]
    best: T | None = None


class Prices(RootModel[list[Priced]]):
    pass


class Cat(BaseModel):
    kind: Literal["cat"] = "cat"
    lives: int = 9


class Dog(BaseModel):
    kind: Literal["dog"] = "dog"
    lives: int = 1


class Animal(BaseModel):
    name: str = ""


class Parrot(Animal):
    """Equal to its base, field by field."""


class Horse(Animal):
    rider: "Rider | None" = None


class Rider(BaseModel):
    weight: int


class Remembering(BaseModel):
    name: str
    _last: Rider | None = PrivateAttr(None)


class Stable(BaseModel):
    animals: list[Animal] = []
    pet: Annotated[Cat | Dog, Discriminator("kind")] = Cat()


class Sized(BaseModel):
    size: int


class Named(BaseModel):
    size: str


class Tree(BaseModel):
    below: "Tree | None" = None
    colour: Colour = Colour.RED


class Site(BaseModel):
    url: HttpUrl
    database: PostgresDsn | None = None
    folder: Path = Path("/srv")
    address: IPv4Address = IPv4Address("127.0.0.1")
    network: IPv6Network = IPv6Network("fe80::/64")


class Lazy(BaseModel):
    size: int

    @functools.cached_property
    def squared(self) -> int:
        return self.size**2


class Lying(BaseModel):
    name: str = None  # type: ignore[assignment]


@dataclasses.dataclass
class Doubling:
    x: int
    total: int = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        self.x *= 2
        self.total = self.x + 1
        self.helper = [self.x]


@dataclasses.dataclass(frozen=True, slots=True)
class Point:
    x: Any
    y: float = 0


@dataclasses.dataclass
class Twin:
    x: Any
    y: float = 0


@dataclasses.dataclass
class Loose:
    x: Any


class Tight(Loose):
    """An equal subclass that is no dataclass of its own."""


@dataclasses.dataclass
class Needs:
    x: int
    given: dataclasses.InitVar[int]

    def __post_init__(self, given: int) -> None:
        self.x += given


@pydantic_dataclass
class Checked:
    at: int

    @field_validator("at")
    @classmethod
    def later(cls, value: int) -> int:
        return value + 1


class Pair(NamedTuple):
    left: Colour
    right: Any = None


class Options(TypedDict):
    colour: Colour
    price: NotRequired[Priced]


def changed(value: Any, **attributes: Any) -> Any:
    """The value, with these attributes set past whatever forbids it."""
    for name, each in attributes.items():
        if isinstance(value, BaseModel):
            setattr(value, name, each)
        else:
            object.__setattr__(value, name, each)
    return value


def changed_slot(value: Any, **attributes: Any) -> Any:
    """The value, with these slots set past pydantic."""
    for name, each in attributes.items():
        object.__setattr__(value, name, each)
    return value


def counted(name: str) -> Counting:
    value = Counting(name=name)
    value._seen = 5
    return value


WITH_TAG = Pair(Colour.GREEN)


class Marked(BaseModel):
    __slots__ = ("_mark",)
    a: int = 1


class Positional(BaseModel):
    a: int

    def __init__(self, a: int, /, **more: Any) -> None:
        super().__init__(a=a, **more)


@pydantic_dataclass(config=ConfigDict(extra="allow"))
class Wide:
    x: int


class Stamped(BaseModel):
    at: datetime


class Shape(abc.ABC):  # noqa: B024 - what it demands does not matter here
    pass


@dataclasses.dataclass(kw_only=True)
class Circle(Shape):
    radius: int
    _area: int = 0

    @property
    def area(self) -> int:
        return self._area


class Planet(enum.Enum):
    EARTH = Circle(radius=1)
    MARS = {"moons": [1, 2]}  # noqa: RUF012
    ALSO_MARS = MARS


class Bits(enum.IntFlag):
    A = 1
    B = 2


class Older(typing_extensions.TypedDict):
    animal: Animal
    colours: typing_extensions.NotRequired[list[Colour]]


GIVEN_BACK: dict[str, tuple[Any, Any]] = {
    "a before-validator": (Priced, Priced(price="1.50")),
    "validators in an annotation": (Annotated_, Annotated_(price="1.50")),
    "an after-validator that accumulates": (Accumulating, Accumulating()),
    "a validator that hashes": (Hashing, Hashing(password="p")),
    "a before-validator of the whole": (Rewriting, Rewriting(total=1)),
    "a field serializer": (Serialised, Serialised(price=150)),
    "nested models": (
        Nested,
        Nested(
            first={"price": "1"},
            others=[Priced(price="2.5")],
            by_name={"p": Hashing(password="x")},
        ),
    ),
    "a list of models": (list[Priced], [Priced(price=1), Priced(price=2)]),
    "a dict of models": (dict[str, Hashing], {"a": Hashing(password="b")}),
    "a tuple of models": (tuple[Priced, Hashing], (Priced(price=1), Hashing(password="b"))),
    "a set of models": (frozenset[Frozen], frozenset({Frozen(a=1), Frozen(a=2)})),
    "keys that are models": (dict[Frozen, Point], {Frozen(a=1): Point(1)}),
    "aliases and computed fields": (Aliased, Aliased(userName="a", email="b")),
    "a frozen strict model": (Frozen, Frozen(a=1)),
    "extra fields": (Open, Open(b=[1], c={"d": None})),
    "an instance without its fields": (Closed, Closed.model_construct()),
    "what validation would refuse": (Closed, Closed.model_construct(a="text")),  # type: ignore[arg-type]
    "private attributes": (Counting, counted("a")),
    "a model in a private attribute": (Remembering, changed(Remembering(name="a"), _last=Rider(weight=1))),
    "a private attribute that was deleted": (Counting, counted("a")),
    "fields that were not set": (Counting, Counting(name="a")),
    "a generic model": (Page[Priced], Page[Priced](items=[Priced(price=1)])),
    "a bare generic model": (Page, Page[Priced](items=[Priced(price=1)])),
    "a root model": (Prices, Prices([{"price": "1.50"}])),
    "a union of models": (Sized | Named, Named(size="1")),
    "a union of equal models": (Point | Twin, Twin(1)),
    "a discriminated union": (Annotated[Cat | Dog, Discriminator("kind")], Dog()),
    "a list of a union": (list[Cat | Dog | None], [Cat(), None, Dog(lives=2)]),
    "a member of a union with its value": (Plan | str, Plan.FREE),
    "the value beside its member": (Plan | str, "free"),
    "an equal subclass": (Animal, Parrot(name="a")),
    "a richer subclass": (Animal, Horse(name="a", rider=Rider(weight=50))),
    "subclasses in a list of their base": (list[Animal], [Animal(), Parrot(), Horse()]),
    "subclasses in a field": (Stable, Stable.model_construct(animals=[Horse(), Animal()], pet=Dog())),
    "any model": (BaseModel, Rider(weight=1)),
    "an equal subclass of a dataclass": (Loose, Tight(1)),
    "a recursive model": (Tree, Tree(below=Tree(colour=Colour.GREEN))),
    "urls, paths and addresses": (Site, Site(url="https://a.org", database="postgres://u:p@h/db")),
    "a default that lies": (Lying, Lying()),
    "what __post_init__ made": (Doubling, Doubling(2)),
    "attributes that are no fields": (Doubling, changed(Doubling(1), note={"a": (1, 2)})),
    "a dataclass that lies": (Loose, Loose("5")),
    "a dataclass with slots": (Point, Point((), 1)),
    "a dataclass with an InitVar": (Needs, Needs(1, 2)),
    "a field of a dataclass that was deleted": (Loose, Loose(1)),
    "a pydantic dataclass": (Checked, Checked(1)),
    "a named tuple": (Pair, Pair(Colour.RED)),
    "a typed dict": (Options, {"colour": Colour.RED, "price": Priced(price="1.50")}),
    "enums": (list[Colour | Plan | Level | Permission], [Colour.GREEN, Plan.FREE, Level.LOW]),
    "flags": (Permission, Permission.READ | Permission.WRITE),
    "no flag": (Permission, Permission(0)),
    "None": (Priced | None, None),
    "a slot of a model": (Marked, changed_slot(Marked(), _mark=[1])),
    "a constructor of its own": (Positional, Positional(3)),
    "extra fields of a pydantic dataclass": (Wide, Wide(x=1, y=[2])),  # type: ignore[call-arg]
    "a class of an abstract base": (list[Shape], [Circle(radius=2, _area=4)]),
    "enums of instances and dicts": (list[Planet], [Planet.EARTH, Planet.MARS, Planet.ALSO_MARS]),
    "unknown bits": (Bits, Bits(7)),
    "an enum member that is a str": (str, Plan.FREE),
    "an enum member that is an int": (dict[str, int], {"a": Level.LOW, "b": 1}),
    "enum members as keys": (dict[Colour, int], {Colour.RED: 1, Colour.GREEN: 2}),
    "counted enum members": (collections.Counter[Colour], collections.Counter({Colour.RED: 2})),
    "models in a defaultdict": (
        collections.defaultdict[str, list[Animal]],
        collections.defaultdict(list, a=[Parrot()]),
    ),
    "a typed dict of typing_extensions": (Older, {"animal": Parrot(), "colours": [Colour.RED]}),
    "a time in a zone": (Stamped, Stamped(at=datetime(2026, 10, 25, 2, 30, fold=1, tzinfo=ZoneInfo("Europe/Berlin")))),
    "containers of the standard library": (
        collections.OrderedDict[str, Point],
        collections.OrderedDict(b=Point(1), a=Point(2)),
    ),
    "a deque": (collections.deque[Priced], collections.deque([Priced(price=1)], maxlen=3)),
}
del GIVEN_BACK["a private attribute that was deleted"][1]._born
del GIVEN_BACK["a field of a dataclass that was deleted"][1].x


@pytest.mark.parametrize(("annotation", "value"), GIVEN_BACK.values(), ids=GIVEN_BACK.keys())
async def test_each_call_gives_what_the_function_returned(
    cache: AnyCache, annotation: Any, value: Any, caplog: pytest.LogCaptureFixture
):
    before = state(value)

    ran, results = await calls_and_results(cache, annotation, value)

    assert [state(each) for each in results] == [before] * 3
    assert not any(each is value for each in results if isinstance(each, BaseModel))
    assert (ran, caplog.messages) == (1, [])
    assert state(value) == before


class Sizes(TypedDict):
    size: int


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        (Sized | dict[str, int], {"size": 1}),
        (dict | Sized, {"size": 1}),
        (Sized | Sizes, {"size": 1}),
        (Sized | Any, {"size": 1}),
        (list[Sized | dict[str, Any]], [{"size": 1}]),
        (dict[str, Sized] | dict[str, dict[str, int]], {"a": {"size": 1}}),
        (Pair | tuple[str, None], ("red", None)),
        (Plan | object, "free"),
        (list[Plan] | list[str], ["free"]),
    ],
)
async def test_plain_data_that_the_annotation_takes_as_it_is_never_becomes_an_instance(
    cache: AnyCache, annotation: Any, value: Any, caplog: pytest.LogCaptureFixture
):
    _, results = await calls_and_results(cache, annotation, value)

    assert [state(each) for each in results] == [state(value)] * 3
    assert [each for each in caplog.messages if "would become an instance" in each] == caplog.messages
    assert len(caplog.messages) == 1


@pytest.mark.parametrize(
    ("annotation", "value"),
    [(Sized | float, 3), (Sized | complex, 1.5), (Sized | Options, {"colour": Colour.RED}), (Sized | Sizes | str, "a")],
)
async def test_plain_data_of_a_kind_that_a_union_takes_beside_a_class_is_cached(
    cache: AnyCache, annotation: Any, value: Any, caplog: pytest.LogCaptureFixture
):
    ran, results = await calls_and_results(cache, annotation, value)

    assert [state(each) for each in results] == [state(value)] * 3
    assert (ran, caplog.messages) == (1, [])


async def test_a_price_is_multiplied_once_by_its_validator(cache: AnyCache):
    @cached(ttl=60, cache=cache)
    async def price() -> Priced:
        return Priced(price="1.50")

    assert [(await price()).price for _ in range(3)] == [150, 150, 150]


async def test_neither_constructors_nor_validators_run_when_a_value_is_given_back(cache: AnyCache):
    ran: list[str] = []

    class Noisy(BaseModel):
        a: int

        def __init__(self, **data: Any) -> None:
            super().__init__(**data)
            ran.append("init")

        @model_validator(mode="before")
        @classmethod
        def before(cls, data: Any) -> Any:
            ran.append("before")
            return data

        def model_post_init(self, _: Any) -> None:
            ran.append("post")

    @dataclasses.dataclass
    class Loud:
        a: Noisy

        def __post_init__(self) -> None:
            ran.append("loud")

    value = Loud(Noisy(a=1))
    made, ran[:] = ran[:], []

    calls, results = await calls_and_results(cache, Loud, value)

    assert made == ["before", "post", "init", "loud"]
    assert (calls, ran, [state(each) for each in results]) == (1, [], [state(value)] * 3)


@pytest.mark.parametrize(
    "name",
    [
        "a before-validator",
        "private attributes",
        "fields that were not set",
        "an after-validator that accumulates",
        "extra fields",
        "a root model",
        "what __post_init__ made",
        "attributes that are no fields",
        "a dataclass with an InitVar",
        "flags",
    ],
)
async def test_a_registered_class_comes_back_whole_without_an_annotation(cache: AnyCache, registered: Any, name: str):
    value = GIVEN_BACK[name][1]
    for each in (type(value), Colour, Priced):
        registered(each)

    await cache.set("k", {"deep": [value]})

    assert state(await cache.get("k")) == state({"deep": [value]})


@pytest.mark.parametrize("annotation", [Any, object, dict, "missing"])
async def test_without_a_class_in_the_annotation_the_same_plain_data_comes_from_the_first_call_on(
    cache: AnyCache, annotation: Any
):
    ran = itertools.count()

    async def function() -> Any:
        next(ran)
        return {"order": [Counting(name="a")], "colour": Colour.RED, "pair": WITH_TAG}

    function.__annotations__["return"] = annotation
    if annotation == "missing":
        del function.__annotations__["return"]
    decorated = cached(ttl=60, cache=cache)(function)

    results = [await decorated() for _ in range(3)]

    plain = {"order": [{"name": "a", "nick": None}], "colour": "red", "pair": (("g", 1), None)}
    assert [state(each) for each in results] == [state(plain)] * 3
    assert next(ran) == 1


async def test_a_function_without_an_annotation_reads_what_was_set_as_plain_data(cache: AnyCache):
    @cached(ttl=60, cache=cache)
    async def load(n):
        raise AssertionError

    await cache.set(load.cache_key(1), [Counting(name="a"), Colour.RED])

    results = [await load(1) for _ in range(3)]

    assert [state(each) for each in results] == [state([{"name": "a", "nick": None}, "red"])] * 3


async def test_an_entry_that_was_set_by_hand_is_as_whole_as_one_that_was_loaded(cache: AnyCache):
    @cached(ttl=60, cache=cache)
    async def load(n: int) -> Animal:
        raise AssertionError

    await cache.set(load.cache_key(1), Horse(rider=Rider(weight=1)))

    results = [await load(1) for _ in range(3)]

    assert [state(each) for each in results] == [state(Horse(rider=Rider(weight=1)))] * 3


@pytest.mark.parametrize("annotation", [Any, object, dict, dict[str, Any], list[dict[str, object]] | None])
def test_results_that_are_plain_for_every_reader_are_written_as_the_first_release_wrote_them(annotation: Any):
    async def load() -> Any: ...

    load.__annotations__["return"] = annotation

    assert not Returned(load).names_classes
    assert ValueCodec().encode({"a": Point(1)}, annotated=False).data == b'\x01\x00{"a":{"x":1,"y":0}}'


async def test_every_way_to_read_gives_the_same_plain_data(cache: AnyCache):
    value = [Counting(name="a"), Point(Colour.RED)]
    plain = state([{"name": "a", "nick": None}, {"x": "red", "y": 0}])

    async def load() -> Any:
        return value

    async def load_many(keys: Any) -> Any:
        return dict.fromkeys(keys, value)

    await cache.set("set", value)
    loaded = [await cache.get_or_load("load", load) for _ in range(2)]
    with_info = await cache.get_or_load("load", load, info=True)
    many = [await cache.get_or_load_many(["many", "set"], load_many) for _ in range(2)]
    found = await cache.lookup("set")
    several = await cache.get_many(["set", "load"])

    read = [await cache.get("set"), *loaded, with_info.value, found.value, *several.values()]
    read += [each for values in many for each in values.values()]
    assert [state(each) for each in read] == [plain] * len(read)


async def test_a_model_under_any_is_plain_data_and_the_model_around_it_is_not(cache: AnyCache):
    class Holder(BaseModel):
        anything: Any
        sized: Sized

    value = Holder(anything=[Rider(weight=1), Colour.RED], sized=Sized(size=1))

    ran, results = await calls_and_results(cache, Holder, value)

    assert ran == 1
    assert [(type(each), each.anything, each.sized) for each in results] == [
        (Holder, [{"weight": 1}, "red"], Sized(size=1))
    ] * 3


# -- classes that change


def versions() -> dict[str, tuple[Any, Any, Any]]:
    """By kind of change: a class, what it became in the next release, and a value of the first."""

    def model(**fields: Any) -> type[BaseModel]:
        annotations = {name: each[0] if isinstance(each, tuple) else each for name, each in fields.items()}
        defaults = {name: each[1] for name, each in fields.items() if isinstance(each, tuple)}
        body = {"__annotations__": annotations, "__module__": __name__, "__qualname__": "Changing", **defaults}
        return type("Changing", (BaseModel,), body)

    def data(**fields: type) -> type:
        made = dataclasses.make_dataclass("Changing", fields.items())
        made.__module__, made.__qualname__ = __name__, "Changing"
        return made

    def members(**values: Any) -> Any:
        return enum.Enum("Changing", values, module=__name__, qualname="Changing")

    def named(**fields: type) -> Any:
        return NamedTuple("Changing", fields.items())

    old_model, old_data, old_enum, old_tuple = model(a=int), data(a=int), members(RED=1, BLUE=2), named(a=int)
    wide_model, list_model = model(a=int, b=int), model(a=list[int])
    return {
        "a field added": (old_model, model(a=int, b=(int, 1)), old_model(a=1)),
        "a field removed": (wide_model, old_model, wide_model(a=1, b=2)),
        "a field renamed": (old_model, model(c=int), old_model(a=1)),
        "a type changed": (old_model, model(a=str), old_model(a=1)),
        "a wider type": (old_model, model(a=float), old_model(a=1)),
        "a constraint changed": (old_model, model(a=(int, Field(ge=5))), old_model(a=1)),
        "a private attribute added": (old_model, model(a=int, _b=(int, PrivateAttr(1))), old_model(a=1)),
        "a type inside changed": (list_model, model(a=list[str]), list_model(a=[])),
        "a dataclass field added": (old_data, data(a=int, b=int), old_data(1)),
        "a dataclass type changed": (old_data, data(a=str), old_data(1)),
        "a model that became a dataclass": (old_model, old_data, old_model(a=1)),
        "a value moved to another member": (old_enum, members(BLUE=1, RED=2), old_enum.RED),
        "a member removed": (old_enum, members(BLUE=2), old_enum.RED),
        "a named tuple renamed": (old_tuple, named(b=int), old_tuple(1)),
    }


CHANGES = versions()


def release(annotation: Any, load: Callable[[], Awaitable[Any]], **options: Any) -> Callable[[], Awaitable[Any]]:
    """One function, as a release of a service has it: each has the same key."""

    async def versioned() -> Any:
        return await load()

    versioned.__annotations__["return"] = annotation
    return cached(ttl=60, **options)(versioned)


@pytest.mark.parametrize(("old", "new", "value"), CHANGES.values(), ids=CHANGES.keys())
async def test_an_entry_of_a_class_that_has_changed_since_is_a_miss(cache: AnyCache, old: Any, new: Any, value: Any):
    ran: list[str] = []

    async def before() -> Any:
        ran.append("before")
        return value

    async def after() -> Any:
        ran.append("after")
        return "loaded"

    earlier, later = release(old | None, before, cache=cache), release(new | str, after, cache=cache)
    given = [state(await earlier()) for _ in range(2)]

    assert [await later() for _ in range(2)] == ["loaded"] * 2
    assert given == [state(value)] * 2
    assert ran == ["before", "after"]


async def test_what_another_process_loaded_of_a_class_that_has_changed_since_is_loaded_again(redis_url: str):
    old, new, value = CHANGES["a type changed"]
    started, finish = asyncio.Event(), asyncio.Event()

    async def before() -> Any:
        started.set()
        await finish.wait()
        return value

    async def after() -> Any:
        return new(a="loaded here")

    clients = [RedisClient(redis_url, timeout=10) for _ in range(2)]
    here, there = (RedisCache[Any](client, namespace="given") for client in clients)
    first = asyncio.ensure_future(release(old, before, lock="distributed", cache=there)())
    await started.wait()
    second = asyncio.ensure_future(release(new, after, lock="distributed", cache=here)())
    finish.set()

    assert state(await second) == state(new(a="loaded here"))
    assert state(await first) == state(value)
    for cache in (here, there):
        await cache.aclose()
    for client in clients:
        await client.aclose()


# -- what cannot be given back


class Base(MappedAsDataclass, DeclarativeBase):
    pass


class Team(Base):
    __tablename__ = "team"
    id: Mapped[int] = mapped_column(primary_key=True)
    players = relationship("Player", back_populates="team", default_factory=list)


class Player(Base):
    __tablename__ = "player"
    id: Mapped[int] = mapped_column(primary_key=True)
    team_id: Mapped[int | None] = mapped_column(ForeignKey("team.id"), default=None)
    team: Mapped["Team | None"] = relationship(default=None)


class Locked(BaseModel):
    name: str
    _lock: Any = PrivateAttr(default_factory=threading.Lock)


class Account(BaseModel):
    password: SecretStr


class Odd(dict):
    pass


@dataclasses.dataclass
class Both(dict):
    a: int

    __hash__ = None


REFUSED: dict[str, tuple[Any, Any, str]] = {
    "a private attribute without a form": (Locked, Locked(name="a"), r"value\._lock .*lock"),
    "an attribute without a form": (Loose, changed(Loose(1), lock=threading.Lock()), r"value\.lock .*lock"),
    "an attribute of a class nobody names": (
        Loose,
        changed(Loose(1), note=[Rider(weight=1)]),
        r"return annotation says.*Rider",
    ),
    "a secret": (Account, Account(password=SecretStr("hush")), r"value\.password .*secret.*register_type\(SecretStr"),
    "a row with a relationship": (Player, Player(id=1, team=Team(id=2)), r"relationship team holds rows"),
    "a subclass of dict": (Odd, Odd(a=1), r"Odd"),
    "a dataclass that is a dict too": (Both, Both(1), r"Both.*dict"),
    "a model in the place of another": (Rider, Sized(size=1), r"return annotation says.*Sized"),
    "a model in the place of another, nested": (list[Rider], [Sized(size=1)], r"return annotation says.*Sized"),
    "a model in the field of another": (
        Horse,
        Horse.model_construct(rider=Sized(size=1)),  # type: ignore[arg-type]
        r"return annotation says.*Sized",
    ),
}


@pytest.mark.parametrize(("annotation", "value", "said"), REFUSED.values(), ids=REFUSED.keys())
async def test_what_cannot_be_given_back_is_never_stored_and_the_reason_is_said_once(
    cache: AnyCache, annotation: Any, value: Any, said: str, caplog: pytest.LogCaptureFixture
):
    ran, results = await calls_and_results(cache, annotation, value)

    assert ran == 3
    assert all(each is value for each in results)
    assert [key async for key in cache.scan()] == []
    assert len(caplog.messages) == 1
    assert "is not cached" in caplog.text
    assert re.search(said, caplog.text)
    assert "hush" not in caplog.text


async def test_a_secret_is_stored_by_consent_and_comes_back_as_a_secret(cache: AnyCache, registered: Any):
    registered(SecretStr, dump=SecretStr.get_secret_value, load=SecretStr)
    value = Account(password=SecretStr("hush"))

    ran, results = await calls_and_results(cache, Account, value)

    assert (ran, results) == (1, [value] * 3)
    assert results[2].password.get_secret_value() == "hush"


# -- FastAPI


async def test_an_endpoint_that_leaves_out_unset_fields_gives_the_same_json_with_a_cache(cache: AnyCache):
    class Inner(BaseModel):
        a: int = 1
        b: int = 2

    class Answer(BaseModel):
        name: str
        nick: str | None = None
        inner: Inner = Inner()
        more: list[Inner] = []

    app = FastAPI()

    async def answer() -> Answer:
        return Answer(name="a", inner=Inner(b=3), more=[Inner(a=1), Inner()])

    app.get("/plain", response_model_exclude_unset=True)(answer)

    @app.get("/cached", response_model_exclude_unset=True)
    @cached(ttl=60, cache=cache)
    async def cached_answer() -> Answer:
        return await answer()

    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as http:
        plain = (await http.get("/plain")).json()
        answers = [(await http.get("/cached")).json() for _ in range(3)]

    assert plain == {"name": "a", "inner": {"b": 3}, "more": [{"a": 1}, {}]}
    assert answers == [plain] * 3


# -- annotations that cannot be resolved


async def test_a_parameter_of_an_unknown_type_does_not_hide_what_is_returned(cache: AnyCache):
    ran = itertools.count()

    @cached(ttl=60, cache=cache, ignore=["session"])
    async def load(a: int, session: "OnlyForTypeCheckers | None" = None) -> Priced:  # type: ignore[name-defined] # noqa: F821
        next(ran)
        return Priced(price=a)

    results = [await load(1) for _ in range(3)]

    assert [state(each) for each in results] == [state(Priced(price=1))] * 3
    assert next(ran) == 1


async def test_a_return_annotation_that_cannot_be_resolved_is_said_once_and_never_gives_another_class(
    cache: AnyCache, caplog: pytest.LogCaptureFixture
):
    value = Priced(price=1)
    ran = itertools.count()

    @cached(ttl=60, cache=cache)
    async def load() -> "OnlyForTypeCheckers":  # type: ignore[name-defined] # noqa: F821
        next(ran)
        return value

    results = [await load() for _ in range(3)]

    assert all(each is value for each in results)
    assert next(ran) == 3
    assert len(caplog.messages) == 1
    assert re.search(r"load cannot be resolved.*OnlyForTypeCheckers", caplog.text)


async def test_plain_results_are_cached_whatever_the_annotation_says(cache: AnyCache, caplog: pytest.LogCaptureFixture):
    ran = itertools.count()

    @cached(ttl=60, cache=cache)
    async def load() -> "OnlyForTypeCheckers":  # type: ignore[name-defined] # noqa: F821
        next(ran)
        return {"a": 1}

    results = [await load() for _ in range(3)]

    assert results == [{"a": 1}] * 3
    assert next(ran) == 1
    assert len(caplog.messages) == 1


# -- entries of the first release


async def test_an_entry_of_the_first_release_is_a_hit_that_nothing_validates(cache: AnyCache):
    ran = itertools.count()

    @cached(ttl=60, cache=cache)
    async def load() -> list[Priced | Doubling] | None:
        next(ran)
        return None

    await cache.set(load.cache_key(), [{"price": 150}, {"x": 4, "total": 5}])

    results = [await load() for _ in range(2)]

    doubling = Doubling(2)
    doubling.helper = [8]  # made by the constructor of today, because its bytes do not have it
    assert [state(each) for each in results] == [state([Priced.model_construct(price=150), doubling])] * 2
    assert next(ran) == 0


async def test_plain_data_that_is_not_of_a_models_types_is_a_miss_and_not_coerced(cache: AnyCache):
    @cached(ttl=60, cache=cache)
    async def load() -> Priced:
        return Priced(price=2)

    await cache.set(load.cache_key(), {"price": "1.50"})

    assert (await load()).price == 200


class Rejected(Exception):
    pass


async def test_an_exception_that_holds_an_instance_is_not_cached_as_another(cache: AnyCache):
    ran = itertools.count()

    @cached(ttl=60, cache=cache, cache_exceptions={Rejected: 60})
    async def load(argument: Any) -> int:
        next(ran)
        raise Rejected(Rider(weight=1) if argument else (1, "plain"))

    for argument in (0, 1):
        for _ in range(2):
            with pytest.raises(Rejected) as caught:
                await load(argument)
            assert caught.value.args == ((Rider(weight=1),) if argument else ((1, "plain"),))

    assert next(ran) == 3
