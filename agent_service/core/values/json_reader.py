"""The walk that restores tagged types in parsed JSON. It only calls what this package or a registration names."""

from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Mapping
from typing import Any, Final

from agent_service.core.errors import UndecodableError
from agent_service.core.values.alike import dict_of, set_of
from agent_service.core.values.instances import Parts
from agent_service.core.values.known import Assembly
from agent_service.core.values.registry import BY_NAME
from agent_service.core.values.standard_types import READERS

__all__ = ["FACTORIES", "read"]

FACTORIES: Final[Mapping[str, Callable[[], Any] | None]] = {
    "": None,
    **{each.__name__: each for each in (list, dict, set, tuple, frozenset, str, bytes, int, float, complex, bool)},
}
"""The factories of a defaultdict that can be stored, by name."""


def read(node: Any, build: Assembly | None = None) -> Any:
    """Return the value of a node. Changes the node's own lists and dicts.

    :param build: makes instances of the classes that it knows; None: all come back as plain data.
    :raises UndecodableError: for an unknown tag or registered type.
    :raises Exception: for damaged contents, whatever their type raises.
    """
    kind = type(node)
    if kind is dict:
        if len(node) == 1:
            ((tag, content),) = node.items()
            if tag == "$of":
                return _read_instance(content, build)
            if tag[:1] == "$":
                return _untag(tag, content, build)
        return _read_members(node, build)
    return _read_items(node, build) if kind is list else node


def _read_members(node: dict[str, Any], build: Assembly | None) -> dict[str, Any]:
    for key, value in node.items():
        kind = type(value)
        if kind is dict or kind is list:
            node[key] = read(value, build)
    return node


def _read_items(node: Any, build: Assembly | None) -> list[Any]:
    if type(node) is not list:
        raise TypeError(f"a list is expected, not {type(node).__name__}")
    for index, value in enumerate(node):
        kind = type(value)
        if kind is dict or kind is list:
            node[index] = read(value, build)
    return node


def _untag(tag: str, content: Any, build: Assembly | None) -> Any:
    reader = READERS.get(tag)
    if reader is not None:
        return reader(content)
    holder = _HOLDERS.get(tag)
    if holder is None:
        raise UndecodableError(f"stored data has the unknown tag {tag[:40]!r}")
    return holder(content, build)


def _read_escaped(content: Any, build: Assembly | None) -> dict[str, Any]:
    if type(content) is not dict or len(content) != 1:
        raise TypeError("an object with one member is expected")
    return _read_members(content, build)


def _read_pairs(content: Any, build: Assembly | None) -> dict[Any, Any]:
    items = _read_items(content, build)
    return dict_of(items[::2], items[1::2])


def _read_registered(content: Any, build: Assembly | None) -> Any:
    name, data, *rest = content
    registered = BY_NAME.get(name)
    if registered is None:
        raise UndecodableError(f"stored data is of the type {name!r:.80}, which is not registered here")
    if build is not None:
        build = build.inside(registered.cls, registered.known)
    data = read(data, build)
    return registered.load(Parts(data, _read_rest(rest, build)) if rest else data)


def _read_instance(content: Any, build: Assembly | None) -> Any:
    data = read(content[1], build)
    if build is None:
        return data
    return build.assemble(content[0], data, _read_rest(content[2:], build) if len(content) > 2 else {})


def _read_rest(content: list[Any], build: Assembly | None) -> dict[str, Any]:
    (rest,) = content
    if type(rest) is not dict:
        raise TypeError(f"an object is expected, not {type(rest).__name__}")
    met = 0 if build is None else len(build.unknown)
    rest = _read_members(rest, build)
    if build is not None and build.strict and len(build.unknown) > met:
        raise UndecodableError(f"it holds a {build.unknown[-1]} in an attribute, where nothing names its class")
    return rest


def _read_whole(content: Any, _build: Assembly | None) -> Any:
    _classes, node = content
    return read(node)


def _read_deque(content: Any, build: Assembly | None) -> deque[Any]:
    longest, items = content
    return deque(_read_items(items, build), longest)


def _read_defaultdict(content: Any, build: Assembly | None) -> defaultdict[Any, Any]:
    name, items = content
    return defaultdict(FACTORIES[name], _read_pairs(items, build))


def _read_slice(content: Any, build: Assembly | None) -> slice:
    start, stop, step = _read_items(content, build)
    return slice(start, stop, step)


_HOLDERS: Final[Mapping[str, Callable[[Any, Assembly | None], Any]]] = {
    "$": _read_escaped,
    "$tuple": lambda content, build: tuple(_read_items(content, build)),
    "$set": lambda content, build: set_of(_read_items(content, build)),
    "$frozenset": lambda content, build: frozenset(set_of(_read_items(content, build))),
    "$dict": _read_pairs,
    "$ordered": lambda content, build: OrderedDict(_read_pairs(content, build)),
    "$counter": lambda content, build: Counter(_read_pairs(content, build)),
    "$defaultdict": _read_defaultdict,
    "$deque": _read_deque,
    "$slice": _read_slice,
    "$type": _read_registered,
    "$whole": _read_whole,
}
