"""A function's return annotation is resolved by itself, or it is said why it cannot be."""

import dataclasses
import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, Protocol, Self, TypeVar

import pytest

from agent_service.core.codec import decode_stored, encode
from agent_service.core.errors import UndecodableError
from agent_service.core.returned import Returned

if TYPE_CHECKING:
    from collections.abc import Sequence as Unseen


@dataclasses.dataclass
class Point:
    x: Any
    y: float = 0


def stored(value: Any) -> Any:
    """A value as it is read back."""
    return decode_stored(*encode(value, keep_classes=True))


def test_a_return_annotation_is_read_whatever_the_parameters_say():
    def hidden(_a: "Unseen[int]", _b: "no python at all", _c: "Missing") -> Point: ...  # type: ignore[valid-type,empty-body,name-defined] # noqa: F722, F821
    def text(_a: "Missing") -> "Point | None": ...  # type: ignore[name-defined] # noqa: F821

    assert Returned(hidden)(stored(Point(1))) == Point(1)
    assert Returned(hidden)({"x": 1, "y": 2}) == Point(1, 2)
    assert Returned(text)(stored(Point(1))) == Point(1)
    assert Returned(text)(None) is None


def test_a_plain_or_missing_annotation_needs_no_rebuilding():
    def plain() -> dict[str, int]: ...  # type: ignore[empty-body]
    def nothing(): ...

    for function in (plain, nothing, functools.partial(nothing), len):
        returned = Returned(function)

        assert (returned.rebuilds, returned.unresolved) == (False, None)
        assert returned({"x": 1}) == {"x": 1}


def test_an_annotation_of_wrapped_functions_is_read_where_they_were_written():
    def injecting(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def wrapper(*args: Any) -> Any:
            return function(*args, "injected")

        return wrapper

    def inner(_a: int, _b: str) -> "Point": ...  # type: ignore[empty-body]

    assert Returned(injecting(inner))(stored(Point(1))) == Point(1)


def test_a_local_class_is_found_where_the_function_uses_it():
    @dataclasses.dataclass
    class Local:
        x: int

    def make() -> "Annotated[list[Local], 'meta']":
        return [Local(1)]

    assert Returned(make)(stored([Local(1)])) == [Local(1)]


def test_a_class_defined_below_the_function_is_found_when_it_is_needed():
    scope: dict[str, Any] = {"__name__": __name__}
    exec("async def early() -> 'Below': ...", scope)
    returned = Returned(scope["early"])
    exec("from dataclasses import dataclass\n@dataclass\nclass Below:\n    x: int\n", scope)

    assert returned({"x": 1}) == scope["Below"](1)
    assert returned(stored(scope["Below"](2))) == scope["Below"](2)
    assert returned.unresolved is None


def test_what_can_never_be_found_is_said_and_only_plain_data_passes():
    def dangling() -> "Nowhere": ...  # type: ignore[name-defined] # noqa: F821

    returned = Returned(dangling)

    assert returned.rebuilds
    assert returned({"x": 1}) == {"x": 1}
    assert returned.unresolved is not None
    assert "Nowhere" in returned.unresolved
    with pytest.raises(UndecodableError, match=r"cannot be resolved .*Nowhere"):
        returned(stored(Point(1)))


@pytest.mark.parametrize("annotation", ["1 +", "Point[", "1 / 0", "().missing"])
def test_an_annotation_that_is_no_type_is_no_error_of_the_decorated_function(annotation: str):
    def odd() -> Any: ...

    odd.__annotations__["return"] = annotation

    assert Returned(odd).unresolved is not None


class Animal:
    def again(self) -> "Self":
        raise NotImplementedError

    def several(self) -> "dict[str, Self | None]":
        raise NotImplementedError


@dataclasses.dataclass
class Dog(Animal):
    name: str


def test_self_stands_for_the_class_of_the_method_and_its_subclasses():
    assert Returned(Animal.again)(stored(Dog("a"))) == Dog("a")
    assert Returned(Animal.several)(stored({"a": Dog("a"), "b": None})) == {"a": Dog("a"), "b": None}


def test_self_outside_of_a_class_that_can_be_found_is_said():
    class Local:
        def again(self) -> "Self":
            raise NotImplementedError

    assert "Self stands for the class" in (Returned(Local.again).unresolved or "")


Bound = TypeVar("Bound", bound="Animal")
Chosen = TypeVar("Chosen", Dog, Point)


def test_a_type_variable_stands_for_its_bound_or_constraints():
    def bound() -> Bound:  # type: ignore[type-var]
        raise NotImplementedError

    def chosen() -> list[Chosen]:
        raise NotImplementedError

    assert Returned(bound)(stored(Dog("a"))) == Dog("a")
    assert Returned(chosen)(stored([Dog("a"), Point(1)])) == [Dog("a"), Point(1)]


class Named(Protocol):
    name: str


def test_a_protocol_takes_no_plain_data_in_the_place_of_an_instance():
    def load() -> Named:
        raise NotImplementedError

    with pytest.raises(UndecodableError, match="Dog, which the annotation does not name"):
        Returned(load)(stored(Dog("a")))


def test_a_subclass_that_is_defined_later_is_found_once_it_is_written():
    returned = Returned(Animal.again)
    late = f'{{"$whole":[[["{__name__}.Late",""]],{{"$of":[0,{{}}]}}]}}'.encode()
    for _ in range(2):
        with pytest.raises(UndecodableError, match="Late, which the annotation does not name"):
            returned(decode_stored(late, tagged=True))

    late_class = dataclasses.make_dataclass("Late", [], bases=(Animal,), namespace={"__module__": __name__})

    assert returned(stored(late_class())) == late_class()
