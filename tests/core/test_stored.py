"""The stored form of values with classes: what was written must be read for ever, and nothing it names is trusted."""

import dataclasses
import enum
import os
import subprocess
import sys
from collections import OrderedDict
from pathlib import Path
from typing import Any, NamedTuple

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, Field, PrivateAttr

from agent_service.core.codec import decode, decode_stored, encode
from agent_service.core.errors import UndecodableError
from agent_service.core.values.shapes import class_name, shape_of
from agent_service.core.values.stored import Stored, Wanted, plain


class Colour(enum.Enum):
    RED = "red"


class Item(BaseModel):
    name: str
    price: int = Field(default=1, ge=0)
    _seen: int = PrivateAttr(0)


@dataclasses.dataclass
class Point:
    x: int
    y: Any = None


class Pair(NamedTuple):
    left: Colour
    right: Any = None


def point(**attributes: Any) -> Point:
    value = Point(1)
    vars(value).update(attributes)
    return value


HERE = __name__.encode()
# Written by the second release. Never edit a line: a changed digest makes every entry of a class a miss.
POINT = b'["%s.Point","fbfbdf9d9f"]'
ITEM = b'["%s.Item","09bae5831b"]'
COLOUR = b'["%s.Colour",""]'
PAIR = b'["%s.Pair","c32770bf7e"]'
GOLDEN: dict[bytes, tuple[Any, Any, Any]] = {
    b'{"$whole":[[' + POINT + b'],{"$of":[0,{"x":1,"y":null}]}]}': (Point, Point(1), {"x": 1, "y": None}),
    b'{"$whole":[[' + POINT + b'],{"$of":[0,{"x":1,"y":null},{"attributes":{"z":{"$tuple":[]}}}]}]}': (
        Point,
        point(z=()),
        {"x": 1, "y": None},
    ),
    b'{"$whole":[[' + ITEM + b'],{"$of":[0,{"name":"a","price":1},{"unset":["price"],"private":{"_seen":0}}]}]}': (
        Item,
        Item(name="a"),
        {"name": "a", "price": 1},
    ),
    b'{"$whole":[[' + COLOUR + b'],[{"$of":[0,"red",{"name":"RED"}]}]]}': (list[Colour], [Colour.RED], ["red"]),
    b'{"$whole":[[' + PAIR + b"," + COLOUR + b'],{"$of":[0,{"$tuple":[{"$of":[1,"red",{"name":"RED"}]},2]}]}]}': (
        Pair,
        Pair(Colour.RED, 2),
        ("red", 2),
    ),
}


def golden() -> list[tuple[bytes, Any, Any, Any]]:
    return [(form.replace(b"%s", HERE), *each) for form, each in GOLDEN.items()]


@pytest.mark.parametrize(("payload", "annotation", "value", "data"), golden())
def test_what_the_second_release_wrote_is_still_read(payload: bytes, annotation: Any, value: Any, data: Any):
    assert encode(value, keep_classes=True) == (payload, True)

    back = decode_stored(payload, tagged=True).as_wanted(Wanted(annotation))

    assert (type(back), back, getattr(back, "__dict__", None)) == (type(value), value, getattr(value, "__dict__", None))
    assert decode(payload, tagged=True) == plain(decode_stored(payload, tagged=True)) == data


def test_values_without_classes_are_written_as_ever():
    for value in ({"a": [1, (2, None)]}, "text", {"$whole": 1}, {"$of": [0, 1]}, OrderedDict(a=1)):
        assert encode(value, keep_classes=True) == encode(value)
        assert decode_stored(*encode(value)) == value


def test_an_unread_value_can_be_written_again():
    payload, _ = encode([Point(1)], keep_classes=True)

    assert decode_stored(payload, tagged=True).payload() == payload


@pytest.mark.parametrize(
    "content",
    [
        1,
        [],
        [[]],
        [1, 2],
        [[], {"$of": [0, {}]}],
        [[["a"]], {"$of": [0, {}]}],
        [[[1, 2]], {"$of": [0, {}]}],
        [[[["a"], "b"]], {"$of": [0, {}]}],
        [[["os.system", ""]], {"$of": [0, "ls"]}],
        [[["os.system", ""]], {"$of": ["ls"]}],
        [[["builtins.int", ""]], {"$of": [0, 1]}],
        [[[f"{__name__}.Point", "fbfbdf9d9f"]], {"$of": [1, {"x": 1, "y": 2}]}],
        [[[f"{__name__}.Point", "fbfbdf9d9f"]], {"$of": [0, 5]}],
        [[[f"{__name__}.Point", "fbfbdf9d9f"]], {"$of": [0, {"x": 1, "y": 2}, []]}],
        [[[f"{__name__}.Point", "fbfbdf9d9f"]], {"$of": [0, {"x": 1, "y": 2}, {"attributes": 5}]}],
        [[[f"{__name__}.Point", "other"]], {"$of": [0, {"x": 1, "y": 2}]}],
        [[[f"{__name__}.Colour", ""]], {"$of": [0, "red", {"name": "GREEN"}]}],
        [[[f"{__name__}.Colour", ""]], {"$of": [0, "blue", {"name": "RED"}]}],
        [[[f"{__name__}.Colour", ""]], {"$of": [0, "red"]}],
    ],
)
def test_classes_of_others_are_refused_and_nothing_is_imported(content: Any):
    modules = set(sys.modules)

    with pytest.raises(UndecodableError):
        decode_stored(orjson.dumps({"$whole": content}), tagged=True).as_wanted(Wanted(Point | Colour))

    assert set(sys.modules) == modules


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.recursive(
        st.none() | st.integers(-9, 9) | st.text(max_size=3) | st.sampled_from(["", "fbfbdf9d9f", f"{__name__}.Point"]),
        lambda inner: (
            st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["$of", "$type", "$tuple", "x"]), inner)
        ),
        max_leaves=6,
    )
)
def test_hostile_classes_raise_nothing_but_our_error(content: Any):
    for wanted in (None, Wanted(Point | None)):
        try:
            stored = decode_stored(orjson.dumps({"$whole": [[[f"{__name__}.Point", "fbfbdf9d9f"]], content]}), True)
            assert isinstance(stored, Stored)
            stored.as_wanted(wanted)
        except UndecodableError:
            continue


def test_a_module_that_is_run_names_its_classes_as_one_that_is_imported(tmp_path: Path):
    (tmp_path / "shop.py").write_text(
        "from dataclasses import dataclass\n"
        "from agent_service.core.values.shapes import class_name, shape_of\n"
        "@dataclass\nclass Order:\n    id: int\n    before: 'Order | None'\n"
        "print(class_name(Order), shape_of(Order))\n"
    )
    root = str(Path(__file__).parents[2])
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{root}"}

    said = [
        subprocess.run([sys.executable, *how], capture_output=True, check=True, env=environment).stdout
        for how in (["-c", "import shop"], [str(tmp_path / "shop.py")], ["-m", "shop"])
    ]

    assert said == [said[0]] * 3
    assert said[0].startswith(b"shop.Order ")


def test_a_shape_does_not_depend_on_how_a_union_is_spelt():
    @dataclasses.dataclass
    class One:
        x: "int"

    def made(annotation: Any) -> str:
        return shape_of(dataclasses.make_dataclass("Made", [("x", annotation)]))

    import typing  # noqa: PLC0415

    assert made(int | None) == made(typing.Optional[int]) == made(typing.Union[int, None])  # noqa: UP007, UP045
    assert made(list[int]) != made(list[str])
    assert class_name(One).endswith("test_a_shape_does_not_depend_on_how_a_union_is_spelt.<locals>.One")
