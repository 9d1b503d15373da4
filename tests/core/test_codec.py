"""The codec: what goes in comes out, or is refused by name; and what comes from elsewhere is never trusted."""

import dataclasses
import enum
import math
import re
import sys
import zoneinfo
from collections import Counter, OrderedDict, defaultdict, deque
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from fractions import Fraction
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, NamedTuple
from uuid import UUID
from zoneinfo import ZoneInfo

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import (
    BaseModel,
    Field,
    HttpUrl,
    PostgresDsn,
    PrivateAttr,
    RootModel,
    Secret,
    SecretBytes,
    SecretStr,
    computed_field,
)
from pydantic_core import Url

from agent_service.core.codec import JsonSerializer, decode, encode, is_immutable
from agent_service.core.errors import CacheSerializationError, CacheValueError, UndecodableError

# Written by the first release. Never edit a line: entries of old processes must stay readable.
GOLDEN = {
    b'{"$datetime":"2026-11-21T10:00:00.000001+00:00"}': datetime(2026, 11, 21, 10, 0, 0, 1, UTC),
    b'{"$datetime":["2026-10-25T02:30:00",1,"Europe/Berlin"]}': datetime(
        2026, 10, 25, 2, 30, fold=1, tzinfo=ZoneInfo("Europe/Berlin")
    ),
    b'{"$datetime":["2026-10-25T02:30:00",0,[3600.0,"CET"]]}': datetime(
        2026, 10, 25, 2, 30, tzinfo=timezone(timedelta(hours=1), "CET")
    ),
    b'{"$date":"2026-11-21"}': date(2026, 11, 21),
    b'{"$time":"10:00:00"}': time(10),
    b'{"$timedelta":[-1,86399,999999]}': timedelta(microseconds=-1),
    b'{"$decimal":"1.10"}': Decimal("1.10"),
    b'{"$uuid":"018f3b1c7a527c1e9f2d0123456789ab"}': UUID("018f3b1c-7a52-7c1e-9f2d-0123456789ab"),
    b'{"$bytes":"AP8="}': b"\x00\xff",
    b'{"$bytearray":"AP8="}': bytearray(b"\x00\xff"),
    b'{"$complex":["1.0","-2.5"]}': 1 - 2.5j,
    b'{"$tuple":[1,{"$tuple":[]}]}': (1, ()),
    b'{"$set":[1]}': {1},
    b'{"$frozenset":["a"]}': frozenset({"a"}),
    b'{"$float":"-inf"}': -math.inf,
    b'{"$int":"-10000000000000000"}': -(1 << 64),
    b'{"$dict":[1,"one",{"$tuple":[2,3]},null]}': {1: "one", (2, 3): None},
    b'{"$":{"$set":[1]}}': {"$set": [1]},
}

# Written by the second release. Never edit a line either.
GOLDEN_2 = {
    b'{"$ipv4":"10.0.0.1"}': IPv4Address("10.0.0.1"),
    b'{"$ipv4interface":"10.0.0.1/8"}': IPv4Interface("10.0.0.1/8"),
    b'{"$ipv4network":"10.0.0.0/8"}': IPv4Network("10.0.0.0/8"),
    b'{"$ipv6":"fe80::1%eth0"}': IPv6Address("fe80::1%eth0"),
    b'{"$ipv6interface":"fe80::1/64"}': IPv6Interface("fe80::1/64"),
    b'{"$ipv6network":"fe80::/64"}': IPv6Network("fe80::/64"),
    b'{"$purepath":"/srv/a"}': PurePosixPath("/srv/a"),
    b'{"$purewindowspath":"C:\\\\a"}': PureWindowsPath("C:\\a"),
    b'{"$fraction":"-1/3"}': Fraction(-1, 3),
    b'{"$url":["HttpUrl","https://a.org/?q=1"]}': HttpUrl("https://a.org/?q=1"),
    b'{"$url":["PostgresDsn","postgres://u:p@h1:1,h2:2/db"]}': PostgresDsn("postgres://u:p@h1:1,h2:2/db"),
    b'{"$url":["Url","ftp://a/"]}': Url("ftp://a/"),
    b'{"$pattern":["str","a.b",34]}': re.compile("a.b", re.IGNORECASE),
    b'{"$pattern":["bytes","\xc3\xbf",0]}': re.compile(b"\xff"),
    b'{"$zone":"Europe/Berlin"}': ZoneInfo("Europe/Berlin"),
    b'{"$zone":[-1,79200,0,"UTC-02:00"]}': timezone(timedelta(hours=-2)),
    b'{"$zone":[0,3600,0,"CET"]}': timezone(timedelta(hours=1), "CET"),
    b'{"$range":["0","a","-3"]}': range(0, 10, -3),
    b'{"$slice":[1,null,{"$tuple":[2]}]}': slice(1, None, (2,)),
    b'{"$deque":[3,[1,{"$tuple":[]}]]}': deque([1, ()], 3),
    b'{"$deque":[null,[]]}': deque(),
    b'{"$ordered":["b",1,"a",{"$ordered":[]}]}': OrderedDict(b=1, a=OrderedDict()),
    b'{"$counter":["a",2,1,-1]}': Counter({"a": 2, 1: -1}),
    b'{"$defaultdict":["list",["a",[1]]]}': defaultdict(list, a=[1]),
    b'{"$defaultdict":["",[]]}': defaultdict(),
}

NEW_YEAR = datetime(2026, 1, 1, tzinfo=UTC)
ZONES = [
    None,
    UTC,
    timezone(timedelta(hours=5, minutes=30)),
    timezone(timedelta(hours=1), "CET"),
    ZoneInfo("Europe/Berlin"),
]


def is_hashable(value: Any) -> bool:
    return type(value) is not bytearray and not (type(value) is Decimal and value.is_snan())


plain = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["$", "$set", "$type"])
)
stamped = st.builds(
    lambda naive, zone, fold: naive.replace(tzinfo=zone, fold=fold),
    st.datetimes() | st.times(),
    st.sampled_from(ZONES),
    st.sampled_from([0, 1]),
)
tagged = (
    stamped
    | st.dates()
    | st.timedeltas()
    | st.decimals()
    | st.uuids()
    | st.binary(max_size=8)
    | st.complex_numbers()
    | st.binary(max_size=8).map(bytearray)
)
hashable = st.recursive(
    plain | tagged.filter(is_hashable),
    lambda inner: st.lists(inner, max_size=3).map(tuple) | st.frozensets(inner, max_size=3),
    max_leaves=4,
)
values = st.recursive(
    plain | tagged,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.text(max_size=4) | st.sampled_from(["$", "$set", "$tuple", "$dict"]), inner, max_size=3)
        | st.dictionaries(hashable, inner, max_size=3)
        | st.sets(hashable, max_size=3)
    ),
    max_leaves=12,
)


def fingerprint(value: Any) -> Any:
    """Types and contents, so that 1 and True, -0.0 and 0.0, and two NaN are told apart or together as they should."""
    kind = type(value)
    if kind in {dict, OrderedDict, Counter, defaultdict}:
        members = [(fingerprint(key), fingerprint(each)) for key, each in value.items()]
        return kind, members, getattr(value, "default_factory", None)
    if kind in {list, tuple, deque}:
        return kind, [fingerprint(each) for each in value], getattr(value, "maxlen", None)
    if kind in {set, frozenset}:
        return kind, sorted(repr(fingerprint(each)) for each in value)
    if kind in {datetime, time}:
        zone = value.tzinfo
        return kind, value.isoformat(), value.fold, type(zone), str(zone), zone and zone.tzname(None)
    return kind, repr(value)


@dataclasses.dataclass
class Point:
    x: int
    y: Any = None


@dataclasses.dataclass(frozen=True)
class Frozen:
    x: int


class Colour(enum.Enum):
    RED = "red"
    PAIR = (1, 2)


class Plan(enum.StrEnum):
    FREE = "free"


class Level(enum.IntEnum):
    LOW = 1


class Inner(BaseModel):
    at: datetime


class Model(BaseModel):
    name: str = Field(alias="userName")
    inner: Inner | None = None
    _seen: int = PrivateAttr(0)

    @computed_field
    def shout(self) -> str:
        return self.name.upper()


class Pair(NamedTuple):
    left: int
    right: Any


class Foreign(tzinfo):
    def __init__(self, offset):
        self.offset = offset

    def utcoffset(self, _moment):
        return self.offset

    def dst(self, _moment):
        return None

    def tzname(self, _moment):
        return "foreign"


@given(values)
def test_every_value_comes_back_as_itself(value):
    payload, is_tagged = encode(value)

    assert fingerprint(decode(payload, is_tagged)) == fingerprint(value)
    assert fingerprint(JsonSerializer().loads(JsonSerializer().dumps(value))) == fingerprint(value)


@given(values)
def test_encoding_changes_nothing_in_the_value(value):
    before = fingerprint(value)

    encode(value)

    assert fingerprint(value) == before


@given(values)
def test_untagged_payloads_are_what_orjson_makes_of_the_value(value):
    payload, is_tagged = encode(value)

    if not is_tagged:
        assert payload == orjson.dumps(value)


@pytest.mark.parametrize(("payload", "value"), [*GOLDEN.items(), *GOLDEN_2.items()])
def test_what_earlier_releases_wrote_is_still_read(payload, value):
    assert encode(value) == (payload, True)
    assert fingerprint(decode(payload, tagged=True)) == fingerprint(value)


def test_a_path_of_this_machine_comes_back_as_one():
    assert fingerprint(decode(*encode({Path("/srv/a"): Path("b")}))) == fingerprint({Path("/srv/a"): Path("b")})


def test_a_zone_made_from_a_file_has_no_stored_form():
    with (Path(zoneinfo.TZPATH[0]) / "Europe/Berlin").open("rb") as file:
        zone = ZoneInfo.from_file(file)

    with pytest.raises(CacheSerializationError, match="ZoneInfo without a name"):
        encode(zone)


def test_a_class_the_codec_knows_may_be_registered_to_be_stored_otherwise(registered):
    registered(deque, name="queue", dump=list, load=deque)

    assert encode(deque([1]))[0] == b'{"$type":["queue",[1]]}'
    assert decode(*encode(deque([1]))) == deque([1])


def test_plain_data_is_plain_json_and_needs_no_walk():
    value = {"a": [1, 2.5, "ü", None, True, {"$a": 1, "b": -0.0}], "n": 2**64 - 1}

    assert encode(value) == (orjson.dumps(value), False)


def test_numbers_are_kept_where_json_would_lose_them():
    for value in (2**64, -(2**63) - 1, 10**5000, -0.0, math.inf, sys.float_info.min, 0.1 + 0.2):
        payload, is_tagged = encode([value])
        (back,) = decode(payload, is_tagged)

        assert (type(back), back, math.copysign(1, back if back < 10**300 else 1)) == (
            type(value),
            value,
            math.copysign(1, value if value < 10**300 else 1),
        )


def test_a_foreign_time_zone_comes_back_as_its_offset():
    value = datetime(2026, 1, 1, tzinfo=Foreign(timedelta(hours=2)), fold=1)
    back = decode(*encode(value))

    assert (back, back.utcoffset(), back.fold) == (value, timedelta(hours=2), 1)


def test_a_time_whose_zone_has_no_offset_of_its_own_is_kept_by_name_or_refused():
    berlin = time(1, tzinfo=ZoneInfo("Europe/Berlin"))

    assert decode(*encode(berlin)).tzinfo is berlin.tzinfo
    with pytest.raises(CacheSerializationError, match="Foreign, which gives no offset"):
        encode(time(1, tzinfo=Foreign(None)))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (Point(1, Point(2)), {"x": 1, "y": {"x": 2, "y": None}}),
        (Point(1, (Colour.RED,)), {"x": 1, "y": ("red",)}),
        (Colour.PAIR, (1, 2)),
        (Plan.FREE, "free"),
        ([Level.LOW], [1]),
        ({Plan.FREE: 1}, {"free": 1}),
        ({Level.LOW: 1}, {1: 1}),
        (
            Model(userName="a", inner=Inner(at=NEW_YEAR)),
            {"name": "a", "inner": {"at": NEW_YEAR}},
        ),
        (RootModel[list[int]]([1]), [1]),
        (Pair(1, Plan.FREE), (1, "free")),
    ],
)
def test_unregistered_classes_come_back_as_plain_data(value, expected):
    assert fingerprint(decode(*encode(value))) == fingerprint(expected)


class Opaque:
    pass


class HttpUrlOfOnesOwn(HttpUrl):
    pass


class Locked(BaseModel):
    name: str = "a"
    _lock: Any = PrivateAttr(default_factory=object)


cycle: list[Any] = [1]
cycle.append({"again": (cycle,)})
branching: dict[str, Any] = {}
branching.update(a=branching, b=branching)
deep: list[Any] = []
for _ in range(300):
    deep = [deep]


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (Opaque(), r"^value cannot be stored: it is a tests.core.test_codec.Opaque, .*register_type\(Opaque, dump"),
        ({"a": [1, 2, 3, Opaque()]}, r"^value\['a'\]\[3\] cannot be stored"),
        ({"a": Point(1, [Opaque()])}, r"^value\['a'\].y\[0\] cannot"),
        ({1: {Opaque}}, r"^value\[1\]<an element of a set> cannot"),
        ({Opaque(): 1}, r"^value<a key> cannot"),
        ("\ud800", r"^value cannot be stored: it holds a lone surrogate at position 0"),
        ({"a": ["\udfff"]}, r"^value\['a'\]\[0\] cannot be stored: it holds a lone surrogate"),
        ({"a\ud800": 1}, r"lone surrogate at position 1"),
        ({1: "\ud800"}, r"^value\[1\] cannot be stored: it holds a lone surrogate"),
        (cycle, "contains itself"),
        (branching, "contains itself"),
        (deep, "nests deeper than 250 levels"),
        (defaultdict(lambda: 1), "defaultdict whose default factory .*has no stored form; use a dict"),
        (type("Sorted", (OrderedDict,), {})(a=1), "Sorted, which the codec does not know"),
        (lambda: 1, "builtins.function"),
        (object, "builtins.type"),
        (Point, "builtins.type"),
        (memoryview(b""), "memoryview"),
        (
            {"k": SecretStr("hush")},
            r"\['k'\].*secrets are never stored in clear.*register_type\(SecretStr, dump=SecretStr",
        ),
        ({"k": SecretBytes(b"hush")}, r"SecretBytes, and secrets are never stored in clear"),
        (Secret[int](5), r"secrets are never stored in clear"),
        (iter([1]), r"list_iterator, which can be read only once; store a list"),
        ((each for each in [1]), r"generator, which can be read only once"),
        (HttpUrlOfOnesOwn("https://a.org"), "HttpUrlOfOnesOwn, which the codec does not know"),
        (deque([1, Opaque()]), r"^value\[1\] cannot be stored"),
        (OrderedDict(a=Opaque()), r"^value\['a'\] cannot be stored"),
        (slice(0, Opaque()), r"^value\[1\] cannot be stored"),
        (type("Text", (str,), {})("a"), "Text, which the codec does not know"),
        ({type("Text", (str,), {})("a"): 1}, "Text"),
        ({Frozen(1)}, "an element of a set becomes plain data that is not hashable"),
        ({Frozen(1): 1}, "a key becomes plain data that is not hashable"),
        ({Colour.RED, "red"}, "an element of a set becomes the same plain data as another"),
        ({Colour.RED: 1, "red": 2}, "a key becomes the same plain data as another"),
    ],
)
def test_what_cannot_be_kept_is_refused_naming_the_way_to_it_and_a_remedy(value, said):
    with pytest.raises(CacheSerializationError, match=said) as caught:
        encode(value)

    assert len(str(caught.value)) < 500
    assert "hush" not in str(caught.value)


def test_tuples_and_registered_types_too_deep_for_json_are_refused():
    value: Any = ()
    for _ in range(200):
        value = (value,)

    with pytest.raises(CacheSerializationError, match="nests deeper"):
        encode(value)


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"{",
        b"\xff",
        b'{"$unknown":1}',
        b'{"$uuid":5}',
        b'{"$uuid":"x"}',
        b'{"$datetime":null}',
        b'{"$datetime":["2026-01-01",0,"No/Where"]}',
        b'{"$datetime":["2026-01-01",0,"../../etc/passwd"]}',
        b'{"$datetime":["2026-01-01",7,null]}',
        b'{"$datetime":["2026-01-01",0,[1e300,"x"]]}',
        b'{"$decimal":"one"}',
        b'{"$decimal":[0,[1],2]}',
        b'{"$bytes":"A"}',
        b'{"$bytes":"A*=="}',
        b'{"$int":1}',
        b'{"$float":"1.5"}',
        b'{"$float":{}}',
        b'{"$complex":[1]}',
        b'{"$timedelta":[1e400]}',
        b'{"$timedelta":[999999999999,0,0]}',
        b'{"$set":[[]]}',
        b'{"$set":{"a":1}}',
        b'{"$tuple":"abc"}',
        b'{"$dict":[1]}',
        b'{"$dict":[[],1]}',
        b'{"$":1}',
        b'{"$":{"a":1,"b":2}}',
        b'{"$type":["os.system","ls"]}',
        b'{"$path":1}',
        b'{"$ipv4":"a"}',
        b'{"$ipv4":5}',
        b'{"$url":["HttpUrl","no url"]}',
        b'{"$url":["os.system","ls"]}',
        b'{"$url":[["a"],"https://a.org"]}',
        b'{"$pattern":["str","(",0]}',
        b'{"$pattern":["str","a",128]}',
        b'{"$pattern":["list","a",0]}',
        b'{"$zone":"../../etc/passwd"}',
        b'{"$zone":[0,90000000,0,"x"]}',
        b'{"$range":[0,1,1]}',
        b'{"$range":["0","1","0"]}',
        b'{"$slice":[1]}',
        b'{"$deque":[-1,[]]}',
        b'{"$deque":[1,{}]}',
        b'{"$defaultdict":["system",[]]}',
        b'{"$defaultdict":[["list"],[]]}',
        b'{"$counter":[1]}',
        b'{"$of":[0]}',
        b'{"$whole":[1]}',
        b'{"$type":"os.system"}',
        b'{"$type":[["os"],1]}',
        b"[" * 2000 + b"]" * 2000,
        b'{"$tuple":[' * 500 + b"]}" * 500,
    ],
)
def test_payloads_of_others_are_refused_and_nothing_is_imported(payload):
    modules = set(sys.modules)

    with pytest.raises(UndecodableError):
        decode(payload, tagged=True)

    assert {name for name in sys.modules if name not in modules and not name.startswith("tzdata")} == set()


@given(
    st.recursive(
        st.none() | st.integers() | st.text(max_size=3),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    ["$", "$tuple", "$set", "$dict", "$type", "$datetime", "$int", "$bytes", "$time", "$complex", "a"]
                ),
                inner,
                max_size=2,
            )
        ),
        max_leaves=6,
    )
)
def test_hostile_json_raises_nothing_but_our_error(node):
    try:
        value = decode(orjson.dumps(node), tagged=True)
    except (UndecodableError, orjson.JSONEncodeError):
        return

    assert fingerprint(decode(*encode(value))) == fingerprint(value)


@pytest.mark.parametrize("cls", [Point, Colour, Plan, Model, Pair])
def test_a_registered_class_comes_back_as_itself(registered, cls):
    value = {
        Point: Point(1, (2,)),
        Colour: Colour.PAIR,
        Plan: Plan.FREE,
        Model: Model(userName="a", inner=Inner(at=NEW_YEAR)),
        Pair: Pair(1, [None]),
    }[cls]
    registered(cls)

    back = decode(*encode({"deep": [value]}))["deep"][0]

    assert (type(back), back) == (cls, value)


def test_a_registered_key_and_element_come_back_as_themselves(registered):
    registered(Frozen, name="frozen")
    value = {Frozen(1): {Frozen(2), Frozen(3)}}

    assert decode(*encode(value)) == value


def test_a_class_may_bring_its_own_dump_and_load(registered):
    class Money:
        def __init__(self, amount, currency):
            self.amount, self.currency = amount, currency

    registered(Money, name="money", dump=lambda money: (money.amount, money.currency), load=lambda data: Money(*data))

    payload, is_tagged = encode(Money(Decimal("1.50"), "EUR"))
    back = decode(payload, is_tagged)

    assert payload == b'{"$type":["money",{"$tuple":[{"$decimal":"1.50"},"EUR"]}]}'
    assert (back.amount, back.currency) == (Decimal("1.50"), "EUR")


def test_registering_is_a_decorator_too(registered):
    @registered
    @dataclasses.dataclass
    class Here:
        x: int

    assert decode(*encode(Here(1))) == Here(1)


def test_a_failing_dump_or_load_is_our_error_with_its_cause(registered):
    registered(Opaque, name="opaque", dump=lambda _value: 1 / 0, load=lambda _data: 1 / 0)

    with pytest.raises(CacheSerializationError, match="the dump function of opaque raised ZeroDivisionError") as dumped:
        encode(Opaque())
    with pytest.raises(UndecodableError, match="ZeroDivisionError") as loaded:
        decode(b'{"$type":["opaque",1]}', tagged=True)

    assert isinstance(dumped.value.__cause__, ZeroDivisionError)
    assert isinstance(loaded.value.__cause__, ZeroDivisionError)


def test_stored_data_of_a_changed_class_is_refused(registered):
    registered(Point, name="point")

    with pytest.raises(UndecodableError, match="does not fit Point"):
        decode(b'{"$type":["point",{"x":1}]}', tagged=True)


@pytest.mark.parametrize(
    ("cls", "options", "said"),
    [
        (Opaque, {}, "give dump and load"),
        (Opaque, {"dump": str}, "give both or neither"),
        (datetime, {}, "needs no registration"),
        (dict, {"dump": dict, "load": dict}, "needs no registration"),
        (Point(1), {}, "must be a class, not Point"),
        (Frozen, {"name": "point"}, "already belongs to"),
    ],
)
def test_a_registration_that_cannot_work_is_refused(registered, cls, options, said):
    registered(Point, name="point")

    with pytest.raises(CacheValueError, match=said):
        registered(cls, **options)


@pytest.mark.parametrize(
    "value",
    [None, True, 1, 2**80, 1.5, "ü", b"a", 1j, Decimal(1), UUID(int=1), date.max, (1, ("a", frozenset({2}))), ()],
)
def test_immutable_values_may_be_shared(value):
    assert is_immutable(value)


@pytest.mark.parametrize(
    "value",
    [
        [],
        {},
        set(),
        bytearray(),
        (1, []),
        frozenset({Frozen(1)}),
        "\ud800",
        Plan.FREE,
        Level.LOW,
        Frozen(1),
        Pair(1, 2),
        type("Stamp", (datetime,), {})(2026, 1, 1),
    ],
)
def test_what_is_mutable_or_comes_back_changed_may_not_be_shared(value):
    assert not is_immutable(value)


def test_an_endless_tuple_is_not_called_immutable():
    inner: list[Any] = []
    value = (inner,)
    nested: Any = ()
    for _ in range(5000):
        nested = (nested,)
    inner.append(value)

    assert not is_immutable(value)
    assert not is_immutable(nested)


@given(values)
def test_shared_values_are_just_what_decoding_gives(value):
    if is_immutable(value):
        assert fingerprint(decode(*encode(value))) == fingerprint(value)
