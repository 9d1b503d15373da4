"""Calls: bound like the function binds them, told apart by type and value, filled into templates without surprises."""

import dataclasses
import enum
import inspect
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from pathlib import PurePosixPath, PureWindowsPath
from types import SimpleNamespace
from typing import Any, NamedTuple
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, PrivateAttr

from agent_service.core.arguments import CallSignature, Template
from agent_service.core.errors import CacheKeyError
from agent_service.core.glob import compile_glob
from agent_service.core.identity import encode_argument, identity_digest


async def plain(a, b=2, *, c="x"):
    pass


async def positional_only(a, /, b=2):
    pass


async def variadic(a, *args, b=1, **kwargs):
    pass


async def nothing():
    pass


@dataclasses.dataclass
class Point:
    x: Any
    y: Any = 0


@dataclasses.dataclass
class Spot:
    x: Any
    y: Any = 0


class Colour(enum.Enum):
    RED = 1
    GREEN = 2


class Plan(enum.StrEnum):
    FREE = "free"


class Permission(enum.Flag):
    READ = 1
    WRITE = 2


class Pair(NamedTuple):
    left: Any
    right: Any


class Model(BaseModel):
    model_config = ConfigDict(extra="allow")
    name: str
    _seen: int = PrivateAttr(0)


class Keyed:
    def __init__(self, key):
        self.key = key

    def __cache_key__(self):
        return self.key


class OtherKeyed(Keyed):
    pass


BERLIN = ZoneInfo("Europe/Berlin")
MOMENT = datetime(2026, 1, 1, 12, tzinfo=UTC)

# No two of these are the same argument.
DISTINCT: list[Any] = [
    None,
    True,
    False,
    1,
    0,
    1.0,
    0.0,
    -0.0,
    float("nan"),
    float("inf"),
    1 + 0j,
    "1",
    "",
    "None",
    "\ud800",
    "é",
    b"1",
    b"",
    bytearray(b"1"),
    -1,
    255,
    256,
    2**64,
    -(2**64),
    Decimal(1),
    Decimal("1.0"),
    (),
    (1,),
    [1],
    [],
    {1},
    frozenset({1}),
    frozenset({"1"}),
    {},
    {1: 2},
    {"1": 2},
    {1: "2"},
    [(1, 2)],
    [1, 2],
    [[1], 2],
    [1, [2]],
    ["ab", "c"],
    ["a", "bc"],
    range(1),
    range(2),
    MOMENT,
    MOMENT.replace(tzinfo=None),
    MOMENT.astimezone(BERLIN),
    MOMENT.astimezone(timezone(timedelta(hours=1))),
    MOMENT.replace(tzinfo=None, fold=1),
    MOMENT.date(),
    MOMENT.time(),
    MOMENT.timetz(),
    timedelta(1),
    timedelta(seconds=1),
    UUID(int=1),
    str(UUID(int=1)),
    PurePosixPath("a"),
    PureWindowsPath("a"),
    Colour.RED,
    Colour.GREEN,
    Plan.FREE,
    "free",
    Permission.READ,
    Permission.READ | Permission.WRITE,
    Permission(0),
    Point(1),
    Spot(1),
    Point(1, 1),
    Point("1"),
    {"x": 1, "y": 0},
    Pair(1, 2),
    (1, 2),
    Model(name="a"),
    Model(name="b"),
    Model(name="a", more=1),
    Keyed(1),
    Keyed("1"),
    Keyed((1, 2)),
    OtherKeyed(1),
    Point,
    Spot,
    int,
]


def test_no_two_different_arguments_share_an_identity():
    encoded = [encode_argument(value, "a") for value in DISTINCT]

    assert len(set(encoded)) == len(DISTINCT)


def test_equal_arguments_share_an_identity():
    for one, other in [
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
        ({"a", "b", "c"}, {"c", "b", "a"}),
        (Model(name="a"), Model(name="a")),
        (float("nan"), float("-nan")),
        (Keyed("k"), Keyed("k")),
        (MOMENT.replace(tzinfo=ZoneInfo("Europe/Berlin")), MOMENT.replace(tzinfo=ZoneInfo.no_cache("Europe/Berlin"))),
    ]:
        assert encode_argument(one, "a") == encode_argument(other, "a")


scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(max_size=5)
    | st.binary(max_size=5)
    | st.sampled_from(["1:", "s1:a", "t0:", b"s1:a"])
)
arguments = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(scalars, inner, max_size=3)
        | st.frozensets(scalars, max_size=3)
        | st.builds(Point, inner, inner)
    ),
    max_leaves=8,
)


def fingerprint(value: Any) -> Any:
    kind = type(value)
    if kind is dict:
        return kind, sorted(((fingerprint(k), fingerprint(v)) for k, v in value.items()), key=repr)
    if kind in {list, tuple}:
        return kind, [fingerprint(each) for each in value]
    if kind is frozenset:
        return kind, sorted((fingerprint(each) for each in value), key=repr)
    if kind is Point:
        return kind, fingerprint(value.x), fingerprint(value.y)
    return kind, repr(value)


@given(st.lists(arguments, max_size=3), st.lists(arguments, max_size=3))
def test_two_argument_lists_share_their_bytes_only_if_they_are_the_same(one, other):
    encoded = [b"".join(encode_argument(value, "a") for value in values) for values in (one, other)]

    same = [fingerprint(value) for value in one] == [fingerprint(value) for value in other]
    assert (encoded[0] == encoded[1]) == same


class Opaque:
    pass


class Failing:
    def __cache_key__(self):
        raise OSError("down")


class Forgetful:
    def __cache_key__(self):
        return object()


circular: list[Any] = []
circular.append({"again": circular})
circular.append(circular)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (
            Opaque(),
            r"argument 'db' has no stable identity .*: db is a tests.core.test_arguments.Opaque; .*ignore=\('db',\)",
        ),
        ([1, {"a": Point(Opaque())}], r"db\[1\]\['a'\].x is a"),
        ({Opaque(): 1}, r"db<key> is a"),
        ({Opaque()}, r"db<element> is a"),
        (lambda: 1, "is a builtins.function"),
        (Keyed(1).__cache_key__, "is a builtins.method"),
        (object(), "is a builtins.object"),
        (iter([]), "list_iterator"),
        (memoryview(b""), "memoryview"),
        (type("Text", (str,), {})("a"), "Text"),
        (type("Stamp", (datetime,), {})(2026, 1, 1), "Stamp"),
        (Failing(), r"has a __cache_key__\(\) that raised OSError"),
        (Forgetful(), "is a builtins.object"),
        (circular, "contains itself"),
    ],
)
def test_an_argument_without_stable_identity_is_refused_by_name_with_the_remedy(value, said):
    with pytest.raises(CacheKeyError, match=said) as caught:
        encode_argument(value, "db")

    assert "0x" not in str(caught.value)
    assert "__cache_key__" in str(caught.value)


def test_the_cause_of_a_failing_cache_key_is_kept():
    with pytest.raises(CacheKeyError) as caught:
        encode_argument(Failing(), "a")

    assert isinstance(caught.value.__cause__, OSError)


@pytest.mark.parametrize(
    "calls",
    [
        [((1,), {}), ((), {"a": 1}), ((1, 2), {}), ((1,), {"b": 2}), ((), {"b": 2, "a": 1}), ((1,), {"c": "x"})],
        [((1, 3), {}), ((1,), {"b": 3}), ((), {"b": 3, "c": "x", "a": 1}), ((), {"c": "x", "a": 1, "b": 3})],
    ],
)
def test_a_call_is_the_same_however_its_arguments_are_passed(calls):
    signature = CallSignature(plain)

    assert len({signature.digest(args, kwargs) for args, kwargs in calls}) == 1


@pytest.mark.parametrize(
    ("function", "calls"),
    [
        (plain, [((1,), {}), ((2,), {}), ((1, 3), {}), ((1,), {"c": 2}), (("1",), {})]),
        (positional_only, [((1,), {}), ((1, 3), {}), ((2,), {"b": 1})]),
        (
            variadic,
            [
                ((1,), {}),
                ((1, 2), {}),
                ((1, 2, 3), {}),
                ((1, (2, 3)), {}),
                ((1,), {"b": 2}),
                ((1,), {"z": 1}),
                ((1, 1), {"z": 1}),
            ],
        ),
    ],
)
def test_different_calls_have_different_digests(function, calls):
    signature = CallSignature(function)

    assert len({signature.digest(args, kwargs) for args, kwargs in calls}) == len(calls)


def test_the_order_of_free_keywords_does_not_matter():
    signature = CallSignature(variadic)

    assert signature.digest((1,), {"x": 1, "y": 2}) == signature.digest((1,), {"y": 2, "x": 1})


@given(st.data())
def test_binding_agrees_with_the_interpreter(data):
    function = data.draw(st.sampled_from([plain, positional_only, variadic, nothing]))
    args = tuple(data.draw(st.lists(st.integers(0, 3), max_size=4)))
    kwargs = data.draw(st.dictionaries(st.sampled_from(["a", "b", "c", "z"]), st.integers(0, 3)))
    try:
        expected = inspect.signature(function).bind(*args, **kwargs)
    except TypeError as exc:
        with pytest.raises(TypeError, match=str(exc)):
            CallSignature(function).bind(args, kwargs)
        return
    expected.apply_defaults()

    assert CallSignature(function).bind(args, kwargs) == tuple(expected.arguments.values())


def test_a_digest_is_128_bits_in_hexadecimal_and_stays_the_same_between_releases():
    digest = CallSignature(plain).digest((1, "ü"), {"c": None})

    assert digest == identity_digest("tests.core.test_arguments.plain", b"a=i1:\x01b=s2:\xc3\xbcc=z")
    assert digest == "ba00116eb8a134bc0264a679d4d7fc75"


def test_functions_never_share_digests():
    async def other(a, b=2, *, c="x"):
        pass

    other.__name__ = plain.__name__

    assert CallSignature(other).digest((1,), {}) != CallSignature(plain).digest((1,), {})


def test_ignored_parameters_do_not_tell_calls_apart_and_need_no_identity():
    signature = CallSignature(plain, ignore=("b",))

    assert signature.digest((1, Opaque()), {}) == signature.digest((1, object()), {})
    assert signature.names == ("a", "c")
    assert signature.values((1, object()), {"c": 3}) == (1, 3)


@pytest.mark.parametrize(
    ("ignore", "said"), [(("db",), r"ignore names 'db'.*plain\(a, b=2"), ("b", r"write ignore=\['b'\]")]
)
def test_ignoring_what_is_not_there_is_refused(ignore, said):
    with pytest.raises(CacheKeyError, match=said):
        CallSignature(plain, ignore=ignore)


async def find(user, user_id="u1", *tags):
    pass


def fill(text, *args, **kwargs):
    return Template(text, find).render(args, kwargs)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("abc", "abc"),
        ("a:b", "a%3Ab"),
        ("50%*", "50%25%2A"),
        (7, "7"),
        (True, "True"),
        (None, "None"),
        (1.5, "1.5"),
        (Decimal("1.50"), "1.50"),
        (UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (date(2026, 1, 2), "2026-01-02"),
        (datetime(2026, 1, 2, 3, tzinfo=UTC), "2026-01-02T03%3A00%3A00+00%3A00"),
        (time(1), "01%3A00%3A00"),
        (Plan.FREE, "free"),
        (Colour.RED, "1"),
        (Keyed("k:1"), "k%3A1"),
        (PurePosixPath("a/b"), "a/b"),
    ],
)
def test_a_field_is_filled_with_the_escaped_value(value, text):
    assert fill("users:{user}", value) == f"users:{text}"


def test_fields_are_bound_arguments_their_attributes_and_defaults():
    user = SimpleNamespace(id=3, team=SimpleNamespace(name="ops"))

    assert fill("{user.id}:{user.team.name}:{user_id}:{{x}}", user) == "3:ops:u1:{x}"
    assert fill("no fields", user) == "no fields"
    assert fill("{user_id}", user=user, user_id="k") == "k"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{name}", "no parameter 'name'; its parameters: user, user_id, tags"),
        ("{}", "must be a parameter"),
        ("{0}", "must be a parameter"),
        ("{user[id]}", "must be a parameter"),
        ("{user!r}", "must be a parameter"),
        ("{user:>3}", "must be a parameter"),
        ("{user..id}", "must be a parameter"),
        ("{user", "cannot be read: .*literal brace"),
        ("user}", "cannot be read"),
        (5, "must be a str, not int"),
    ],
)
def test_a_template_that_cannot_be_filled_is_refused_when_it_is_made(text, said):
    with pytest.raises(CacheKeyError, match=said):
        Template(text, find)


@pytest.mark.parametrize(
    ("text", "value", "said"),
    [
        ("{user}", [1], "is a list, which has no short form"),
        ("{user}", Opaque(), "is a Opaque, which has no short form"),
        ("{user.id}", None, "a NoneType has no attribute 'id'"),
        ("{tags}", 1, "is a tuple"),
        ("{user}", b"x", "is a bytes"),
    ],
)
def test_a_value_that_does_not_fit_a_field_is_refused(text, value, said):
    with pytest.raises(CacheKeyError, match=said):
        fill(text, value)


@given(st.text(min_size=1), st.text())
def test_different_values_never_render_the_same(one, other):
    assert (fill("k:{user}:{user_id}", one, "x") == fill("k:{user}:{user_id}", other, "x")) == (one == other)


@given(st.text(min_size=1), st.text(min_size=1))
def test_patterns_reach_the_rendered_and_the_plain_key_and_no_other(value, other):
    template = Template("users:{user}:*", find)
    patterns = [compile_glob(pattern) for pattern in template.as_patterns((value,), {})]
    keys = [f"users:{value}:x", template.render((value,), {})[:-1] + "x"]

    assert all(any(matches(key.encode()) for matches in patterns) for key in keys)
    if ":" not in value + other and "%" not in value + other and value != other:
        assert not any(matches(f"users:{other}:x".encode()) for matches in patterns)


def test_keys_are_given_as_rendered_and_as_they_are():
    template = Template("user:{user}", find)

    assert template.as_keys(("a",), {}) == ("user:a",)
    assert template.as_keys(("a:b",), {}) == ("user:a%3Ab", "user:a:b")
