"""The walk that puts tagged types back into parsed JSON. It calls only what this package names or holds registered."""

from collections.abc import Callable, Mapping
from typing import Any, Final

from agent_service.core.errors import UndecodableError
from agent_service.core.registry import BY_NAME
from agent_service.core.standard_types import READERS

__all__ = ["read"]


def read(node: Any) -> Any:
    """Give the value a node stands for. Changes the node's own lists and dicts.

    :raises UndecodableError: for a tag or registered type that is unknown. Damaged contents raise whatever the type
        they should become raises.
    """
    kind = type(node)
    if kind is dict:
        if len(node) == 1:
            ((tag, content),) = node.items()
            if tag[:1] == "$":
                return _untag(tag, content)
        return _read_members(node)
    return _read_items(node) if kind is list else node


def _read_members(node: dict[str, Any]) -> dict[str, Any]:
    for key, value in node.items():
        kind = type(value)
        if kind is dict or kind is list:
            node[key] = read(value)
    return node


def _read_items(node: Any) -> list[Any]:
    if type(node) is not list:
        raise TypeError(f"a list is expected, not {type(node).__name__}")
    for index, value in enumerate(node):
        kind = type(value)
        if kind is dict or kind is list:
            node[index] = read(value)
    return node


def _untag(tag: str, content: Any) -> Any:
    reader = READERS.get(tag) or _HOLDERS.get(tag)
    if reader is None:
        raise UndecodableError(f"stored data has the unknown tag {tag[:40]!r}")
    return reader(content)


def _read_escaped(content: Any) -> dict[str, Any]:
    if type(content) is not dict or len(content) != 1:
        raise TypeError("an object with one member is expected")
    return _read_members(content)


def _read_pairs(content: Any) -> dict[Any, Any]:
    items = _read_items(content)
    return dict(zip(items[::2], items[1::2], strict=True))


def _read_registered(content: Any) -> Any:
    name, data = content
    registered = BY_NAME.get(name)
    if registered is None:
        raise UndecodableError(f"stored data is of the type {name!r:.80}, which is not registered here")
    return registered.load(read(data))


_HOLDERS: Final[Mapping[str, Callable[[Any], Any]]] = {
    "$": _read_escaped,
    "$tuple": lambda content: tuple(_read_items(content)),
    "$set": lambda content: set(_read_items(content)),
    "$frozenset": lambda content: frozenset(_read_items(content)),
    "$dict": _read_pairs,
    "$type": _read_registered,
}
