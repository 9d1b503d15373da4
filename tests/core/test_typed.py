"""What an annotation promises comes back from plain data, and plain annotations are left alone."""

import dataclasses
import enum
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Generic, Literal, NamedTuple, NewType, TypedDict, TypeVar, Union

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, RootModel, computed_field, field_validator
from pydantic.dataclasses import dataclass as pydantic_dataclass
from typing_extensions import TypeAliasType

from agent_service.core.codec import decode, encode
from agent_service.core.errors import UndecodableError
from agent_service.core.values.typed import restorer
from tests.support.depth import examples
from tests.support.ids import steady

T = TypeVar("T")


class Colour(enum.Enum):
    RED = "red"
    GREEN = ("g", 1)


class Level(enum.IntEnum):
    LOW = 1


class Permission(enum.Flag):
    READ = 1
    WRITE = 2


@dataclasses.dataclass(frozen=True, slots=True)
class Point:
    x: Any
    y: float = 0


@dataclasses.dataclass
class Tree:
    value: Colour
    children: list["Tree"] = dataclasses.field(default_factory=list)
    total: int = dataclasses.field(init=False, default=0)

    def __post_init__(self):
        self.total = len(self.children) + 1


@dataclasses.dataclass
class Doubling:
    x: int

    def __post_init__(self):
        self.x *= 2


@dataclasses.dataclass
class Page(Generic[T]):
    items: list[T]
    best: T | None = None


@pydantic_dataclass
class Checked:
    at: datetime


class Inner(BaseModel):
    colour: Colour
    point: Point | None = None


class Model(BaseModel):
    model_config = ConfigDict(strict=True)
    name: str = Field(alias="userName")
    inner: list[Inner] = []
    _seen: int = PrivateAttr(0)

    @computed_field
    def shout(self) -> str:
        return self.name.upper()


class Extra(BaseModel):
    model_config = ConfigDict(extra="allow", frozen=True)
    a: int


class Lying(BaseModel):
    name: str = None  # type: ignore[assignment]


class Recursive(BaseModel):
    below: "Recursive | None" = None


class GenericModel(BaseModel, Generic[T]):
    item: T


class Pair(NamedTuple):
    left: Colour
    right: int


class Options(TypedDict, total=False):
    colour: Colour
    size: int


class Sized(TypedDict):
    colour: Colour
    size: int


class Deep(BaseModel):
    names: list[str] | int


UserId = NewType("UserId", int)
Shade = NewType("Shade", Colour)

OLD_STYLE = Union[Point, Tree, None]  # noqa: UP007  (another type at run time than Point | Tree | None)

ROUND_TRIPS: list[tuple[Any, Any]] = [
    (Colour, Colour.GREEN),
    (Level, Level.LOW),
    (Permission, Permission.READ | Permission.WRITE),
    (Point, Point(1, 2.5)),
    (Point, Point("an x of any type", 1)),
    (Tree, Tree(Colour.RED, [Tree(Colour.GREEN)])),
    (Model, Model(userName="a", inner=[Inner(colour=Colour.RED, point=Point(1))])),
    (Extra, Extra(a=1, b=2)),
    (Recursive, Recursive(below=Recursive())),
    (GenericModel[Point], GenericModel[Point](item=Point(1))),
    (RootModel[list[Point]], RootModel[list[Point]]([Point(1)])),
    (Checked, Checked(datetime(2026, 1, 1, tzinfo=UTC))),
    (Lying, Lying()),
    (Pair, Pair(Colour.RED, 1)),
    (Options, {"colour": Colour.RED}),
    (Page[Point], Page([Point(1)], Point(2))),
    (Page[Page[Colour]], Page([Page([Colour.RED])])),
    (Point | None, None),
    (Point | None, Point(1)),
    (OLD_STYLE, Tree(Colour.RED)),
    (Point | str | int, "x"),
    (Point | dict[str, int], {"a": 1}),
    (Point | dict[str, int], Point(1)),
    (list[Point] | Point, [Point(1)]),
    (list[Point] | list[Pair], []),
    (list[Point], [Point(1)]),
    (Sequence[Point], (Point(1),)),
    (tuple[Point, ...], (Point(1), Point(2))),
    (tuple[int, Point], (1, Point(1))),
    (set[Colour], {Colour.RED, Colour.GREEN}),
    (frozenset[Colour], frozenset({Colour.RED})),
    (dict[Colour, list[Point]], {Colour.GREEN: [Point(1)]}),
    (dict[str, dict[int, Point]], {"a": {1: Point(1)}}),
    (Mapping[str, Point], {"a": Point(1)}),
    (Annotated[Point, "meta"], Point(1)),
    (Shade, Colour.RED),
    (Literal[Colour.RED, "x"], Colour.RED),
    (Literal[Colour.GREEN, "x"], "x"),
    (list[Any | Point], [Point(1)]),
]

PLAIN = [
    Any,
    None,
    str,
    int,
    bool,
    object,
    dict,
    list,
    dict[str, int],
    list[str],
    tuple[int, ...],
    tuple[()],
    set[UserId],
    str | None,
    dict[str, list[float]] | None,
    datetime,
    Literal["a", 1],
    UserId,
    TypeVar("Unbound"),
    Annotated[str, "meta"],
    "not resolved",
    Sequence,
    5,
]


@pytest.mark.parametrize(("annotation", "value"), ROUND_TRIPS, ids=lambda each: steady(each)[:40])
def test_a_value_comes_back_as_its_annotation_says(annotation, value):
    restore = restorer(annotation)
    assert restore is not None

    back = restore(decode(*encode(value)))

    assert (type(back), back) == (type(value), value)


@pytest.mark.parametrize("annotation", PLAIN, ids=str)
def test_an_annotation_with_nothing_to_rebuild_is_left_alone(annotation):
    assert restorer(annotation) is None


colours = st.sampled_from(Colour)
points = st.builds(Point, st.integers() | st.text() | st.lists(st.integers()), st.floats(allow_nan=False))
trees = st.recursive(st.builds(Tree, colours), lambda inner: st.builds(Tree, colours, st.lists(inner, max_size=3)))
models = st.builds(
    Model, userName=st.text(), inner=st.lists(st.builds(Inner, colour=colours, point=st.none() | points))
)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow], max_examples=examples(30, 100))
@given(st.dictionaries(st.text(), st.tuples(trees, st.none() | models, st.lists(points))))
def test_any_nesting_comes_back(value):
    restore = restorer(dict[str, tuple[Tree, Model | None, list[Point]]])
    assert restore is not None

    assert restore(decode(*encode(value))) == value


def test_values_that_are_of_the_class_already_pass_through():
    for annotation, value in [
        (Point, Point(1)),
        (Model, Model(userName="a")),
        (Colour, Colour.RED),
        (Pair, Pair(Colour.RED, 1)),
    ]:
        restore = restorer(annotation)
        assert restore is not None

        assert restore(value) is value


def test_what_post_init_made_of_a_field_is_not_made_again():
    restore = restorer(Doubling)
    assert restore is not None

    assert restore(decode(*encode(Doubling(2)))).x == 4


def test_what_the_fields_of_a_dataclass_hold_is_not_coerced():
    restore = restorer(dict[str, Point | int])
    assert restore is not None

    back = restore(decode(*encode({"a": Point("5", 1)})))["a"]

    assert (type(back.x), type(back.y)) == (str, int)


@pytest.mark.parametrize(
    ("annotation", "data"),
    [
        (Point, {"x": 1}),
        (Point, {"x": 1, "y": 2, "z": 3}),
        (Point, [1, 2]),
        (Point, None),
        (Colour, "blue"),
        (Colour, []),
        (Model, {"userName": "a", "inner": []}),
        (Model, {"name": 5, "inner": []}),
        (Model, {"name": "a", "inner": [{"colour": "blue", "point": None}]}),
        (Extra, {"b": 1}),
        (RootModel[list[Point]], 5),
        (Pair, ("red",)),
        (Pair, ["red", 1]),
        (Options, []),
        (Sized, {"colour": "red"}),
        (Deep, {"names": ["a", 1]}),
        (Deep, {"names": {"a": 1}}),
        (list[Point], {"x": 1, "y": 2}),
        (list[Point], [{"x": 1}]),
        (dict[str, Point], [1]),
        (tuple[int, Point], (1,)),
        (Point | Colour, "blue"),
        (Point | None, {"x": 1}),
        (Literal[Colour.RED], []),
        (Literal[Colour.RED], "x"),
    ],
)
def test_data_that_does_not_fit_is_refused(annotation, data):
    restore = restorer(annotation)
    assert restore is not None

    with pytest.raises(UndecodableError):
        restore(data)


@dataclasses.dataclass
class Twin:
    x: int
    y: float


def test_nothing_is_guessed_where_two_members_of_a_union_fit():
    restore = restorer(Point | Twin)
    assert restore is not None

    with pytest.raises(UndecodableError, match="Point and Twin; register_type"):
        restore({"x": 1, "y": 2.0})


def test_members_of_a_union_are_told_apart_by_their_literals():
    @dataclasses.dataclass
    class Cat:
        kind: Literal["cat"]

    @dataclasses.dataclass
    class Dog:
        kind: Literal["dog"]

    class Cow(BaseModel):
        kind: Literal["cow"]

    restore = restorer(Cat | Dog | Cow)
    assert restore is not None

    assert [restore({"kind": kind}) for kind in ("cat", "dog", "cow")] == [Cat("cat"), Dog("dog"), Cow(kind="cow")]


def test_a_raising_constructor_is_our_error():
    @dataclasses.dataclass
    class Picky:
        x: int

        def __post_init__(self):
            raise OSError("no")

    restore = restorer(Picky)
    assert restore is not None

    with pytest.raises(UndecodableError, match=r"does not make a .*Picky: OSError"):
        restore({"x": 1})


def test_the_fields_of_a_model_are_put_back_and_its_validators_do_not_run():
    class Priced(BaseModel):
        price: int
        words: list[str] = []
        _made: str = PrivateAttr("new")

        @field_validator("*", mode="before")
        @classmethod
        def never(cls, _value: Any) -> Any:
            raise AssertionError

        def model_post_init(self, _: Any) -> None:
            self._made = f"of {self.price}"
            self.price += 1

    restore = restorer(Priced)
    assert restore is not None

    back = restore({"price": 150, "words": ["a"]})

    assert (back.price, back.words, back._made, back.model_fields_set) == (150, ["a"], "of 150", {"price", "words"})


def test_a_class_that_cannot_be_rebuilt_from_its_fields_is_left_as_plain_data():
    @dataclasses.dataclass
    class Dangling:
        x: "Nowhere"  # type: ignore[name-defined]  # noqa: F821

    class Unfinished(BaseModel):
        x: "Nowhere"  # type: ignore[name-defined]  # noqa: F821

    assert restorer(Unfinished | None) is None
    assert restorer(list[Dangling]) is None


def test_a_dataclass_that_needs_more_than_its_fields_is_not_guessed():
    @dataclasses.dataclass
    class Needs:
        x: int
        secret: dataclasses.InitVar[int]

    restore = restorer(Needs)
    assert restore is not None

    with pytest.raises(UndecodableError, match="does not make"):
        restore({"x": 1})


def test_a_type_alias_is_looked_through():
    points = TypeAliasType("points", list[Point])

    restore = restorer(points)
    assert restore is not None

    assert restore([{"x": 1, "y": 2}]) == [Point(1, 2)]
