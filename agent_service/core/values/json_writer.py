"""The walk that turns a value into data that JSON can hold.

Plain data (``None``, bool, int, float, str, and lists and dicts of them) is not copied: the type of each scalar is
checked once. Everything else becomes an object with one member whose name begins with ``$``; a dict that
looks like that by itself is wrapped in ``{"$": ...}``. Errors collect the path to the value while they unwind.

There are two walks. The lenient one leaves it to orjson to refuse what it cannot write: big integers, lone surrogates,
keys that are no str. If orjson refuses, the strict one checks every str, int and key, to write it or to name it.

Instances of unregistered classes are written as plain data, or, where the writer is told to keep classes, as
``{"$of": [class, data, rest]}``: the number of the class among those of the whole value, its plain data, and what
the plain data leaves out, if anything (see :mod:`.instances`).
"""

from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Collection, Mapping
from enum import Enum
from typing import Any, Final, NoReturn

import orjson

from agent_service.core.errors import CacheSerializationError
from agent_service.core.fixed import FixedDict, FixedList
from agent_service.core.values.alike import MOST_ALIKE, too_many_alike
from agent_service.core.values.instances import plain_data, rest_of, runs_code
from agent_service.core.values.json_reader import FACTORIES, read
from agent_service.core.values.refusal import NotWritable
from agent_service.core.values.registry import BY_CLASS, RegisteredType
from agent_service.core.values.shapes import class_name, shape_of
from agent_service.core.values.standard_types import WRITERS, write_float, write_int

__all__ = ["MAX_DEPTH", "Writer", "encode"]

MAX_DEPTH: Final = 250
"""Deepest nesting of the JSON; orjson's own limit is 254."""

MAX_CLASSES: Final = 1000
"""The most classes in one value."""

_TOO_DEEP = f"value nests deeper than {MAX_DEPTH} levels; flatten it"
_LENIENT = frozenset({str, int, bool, type(None)})
_STRICT = frozenset({bool, type(None)})
_HASHABLE = _LENIENT | {float} | WRITERS.keys()


def encode(value: Any, *, keep_classes: bool = False, annotated: bool = False) -> tuple[bytes, bool]:
    """Return the value's JSON, and whether :func:`~agent_service.core.codec.decode` has to look for tagged types in it.

    :param keep_classes: write instances of unregistered classes whole, for
        :func:`~agent_service.core.codec.decode_stored`; else as plain data.
    :param annotated: whether it will be read with an annotation; then classes need not be hashable as plain data.
    :raises CacheSerializationError: naming the path to what cannot be written, as ``value['a'][3]``, and the remedy.
    """
    if type(value) in _LENIENT:
        try:
            return orjson.dumps(value), False
        except orjson.JSONEncodeError:
            pass  # a lone surrogate or a big integer, which the strict walk names or writes
    for strict in (False, True):
        writer = Writer(strict, keep_classes, annotated)
        try:
            node = writer.whole(writer.node(value))
            return orjson.dumps(node), writer.tagged
        except NotWritable as refused:
            raise refused.error() from refused.__cause__
        except RecursionError:
            raise CacheSerializationError(_TOO_DEEP) from None
        except orjson.JSONEncodeError as exc:
            reason = exc
    raise CacheSerializationError(f"value cannot be written as JSON: {reason}") from reason


class Writer:
    """One walk over one value. ``tagged`` tells afterwards whether reading it back needs a walk too.

    :param strict: check every str, int and key.
    :param keep_classes: write the class of each instance; ``classes`` collects them.
    :param annotated: sets and keys will be read with their classes, so the classes decide what is hashable.
    """

    __slots__ = ("annotated", "classes", "keep_classes", "safe", "strict", "tagged")

    def __init__(self, strict: bool, keep_classes: bool = False, annotated: bool = False) -> None:
        self.strict = strict
        self.keep_classes = keep_classes
        self.annotated = annotated
        self.safe = _STRICT if strict else _LENIENT
        self.tagged = False
        self.classes: dict[type, int] = {}

    def node(self, value: Any, depth: int = 0) -> Any:
        """Return the JSON form of the value: the value itself when it is plain.

        :raises NotWritable: if something would be lost.
        """
        kind = type(value)
        return value if kind in self.safe else _WALKERS.get(kind, _write_other)(self, value, depth)

    def tag(self, name: str, content: Any) -> dict[str, Any]:
        """Return a tagged object."""
        self.tagged = True
        return {name: content}

    def whole(self, node: Any) -> Any:
        """Return the JSON form of the whole value, with the classes in it."""
        if not self.classes:
            return node
        return self.tag("$whole", [[[class_name(each), shape_of(each)] for each in self.classes], node])


def _write_dict(writer: Writer, data: dict[Any, Any], depth: int, step: str = "[{!r:.80}]") -> dict[str, Any]:
    if depth >= MAX_DEPTH:
        _refuse_depth()
    if writer.strict and not all(type(key) is str for key in data):
        return _write_pairs(writer, data, depth)
    safe = writer.safe
    result = data
    key: Any = None
    try:
        for key, value in data.items():
            if (kind := type(value)) in safe or (kind is float and value - value == 0.0):
                continue
            node = _WALKERS.get(kind, _write_other)(writer, value, depth + 1)
            if node is not value:
                if result is data:
                    result = data.copy()
                result[key] = node
    except NotWritable as refused:
        refused.add_step(step.format(key), data)
        raise
    if writer.strict:
        for key in data:
            _write_str(writer, key, depth)
    if len(data) == 1 and type(key) is str and key[:1] == "$":
        return writer.tag("$", result)
    return result


def _write_list(writer: Writer, data: list[Any], depth: int) -> list[Any]:
    if depth >= MAX_DEPTH:
        _refuse_depth()
    safe = writer.safe
    result = data
    index = 0
    try:
        for index, value in enumerate(data):
            if (kind := type(value)) in safe or (kind is float and value - value == 0.0):
                continue
            node = _WALKERS.get(kind, _write_other)(writer, value, depth + 1)
            if node is not value:
                if result is data:
                    result = data.copy()
                result[index] = node
    except NotWritable as refused:
        refused.add_step(f"[{index}]", data)
        raise
    return result


def _write_tuple(writer: Writer, data: tuple[Any, ...], depth: int) -> dict[str, Any]:
    try:
        return writer.tag("$tuple", _write_list(writer, list(data), depth + 1))
    except NotWritable as refused:
        refused.containers.append(id(data))
        raise


def _write_set(writer: Writer, data: set[Any] | frozenset[Any], depth: int) -> dict[str, Any]:
    nodes = _write_unordered(writer, data, depth + 1, "an element of a set")
    return writer.tag("$set" if type(data) is set else "$frozenset", nodes)


def _write_pairs(writer: Writer, data: dict[Any, Any], depth: int) -> dict[str, Any]:
    """Write a dict whose keys are not all str: as a flat list, unless all keys are written as strings."""
    keys = _write_unordered(writer, data, depth + 1, "a key")
    if all(type(key) is str for key in keys):
        return _write_dict(writer, dict(zip(keys, data.values(), strict=True)), depth)
    return writer.tag("$dict", _flat(writer, data, depth, keys))


def _flat(writer: Writer, data: Mapping[Any, Any], depth: int, keys: list[Any] | None = None) -> list[Any]:
    """Write keys and values in turn."""
    if keys is None:
        keys = _write_unordered(writer, data, depth + 1, "a key")
    flat: list[Any] = []
    for key, node, value in zip(data, keys, data.values(), strict=True):
        try:
            flat += (node, writer.node(value, depth + 2))
        except NotWritable as refused:
            refused.add_step(f"[{key!r:.80}]", data)
            raise
    return flat


def _write_unordered(writer: Writer, members: Collection[Any], depth: int, what: str) -> list[Any]:
    """Write members that must come back hashable and distinct, which their plain forms may not be."""
    if depth >= MAX_DEPTH:
        _refuse_depth()
    if too_many_alike(members):
        raise NotWritable(f"more than {MOST_ALIKE} times {what} has the hash of another; store a list of them")
    try:
        nodes = [writer.node(member, depth + 1) for member in members]
    except NotWritable as refused:
        refused.add_step(f"<{what}>", members)
        raise
    if writer.annotated or all(type(member) in _HASHABLE for member in members):
        return nodes
    back = [read(node) for node in orjson.loads(orjson.dumps(nodes))]
    try:
        distinct = len(set(back))
    except TypeError:
        raise NotWritable(f"{what} becomes plain data that is not hashable; register_type() its class") from None
    if distinct != len(nodes):
        raise NotWritable(f"{what} becomes the same plain data as another; register_type() its class")
    return nodes


def _write_str(_writer: Writer, value: str, _depth: int) -> str:
    try:
        value.encode()
    except UnicodeEncodeError as exc:
        raise NotWritable(
            f"it holds a lone surrogate at position {exc.start}, which has no UTF-8 form; replace it"
        ) from None
    return value


def _write_int(writer: Writer, value: int, _depth: int) -> Any:
    if -(1 << 63) <= value < 1 << 64:
        return value
    writer.tagged = True
    return write_int(value)


def _write_float(writer: Writer, value: float, _depth: int) -> Any:
    if value - value == 0.0:
        return value
    writer.tagged = True
    return write_float(value)


def _write_other(writer: Writer, value: Any, depth: int) -> Any:
    kind = type(value)
    registered = BY_CLASS.get(kind)
    leaf = WRITERS.get(kind)
    if leaf is not None and registered is None:
        writer.tagged = True
        return leaf(value)
    if depth >= MAX_DEPTH:
        _refuse_depth()
    if registered is not None:
        return _write_registered(writer, registered, value, depth)
    holder = _HOLDERS.get(kind)
    if holder is not None:
        return holder(writer, value, depth)
    data = plain_data(value)
    if not writer.keep_classes:
        return _write_plain(writer, data, depth)
    rest = rest_of(value)  # first, because it may refuse the whole
    number = writer.classes.setdefault(kind, len(writer.classes))
    if number >= MAX_CLASSES:
        raise NotWritable(f"it holds instances of more than {MAX_CLASSES} classes; store them apart")
    content = [number, _write_plain(writer, data, depth + 2)]
    if rest:
        content.append(_write_rest(writer, rest, depth + 2))
    return writer.tag("$of", content)


def _write_registered(writer: Writer, registered: RegisteredType, value: Any, depth: int) -> Any:
    try:
        data = registered.dump(value)
    except NotWritable:
        raise
    except Exception as exc:  # dump is the caller's code
        raise NotWritable(f"the dump function of {registered.name} raised {type(exc).__name__}") from exc
    content = [registered.name, _write_plain(writer, data, depth + 2)]
    if registered.is_record and not isinstance(value, Enum):
        rest = rest_of(value)
        if rest or runs_code(registered.cls):
            content.append(_write_rest(writer, rest, depth + 2))
    return writer.tag("$type", content)


def _write_rest(writer: Writer, rest: dict[str, Any], depth: int) -> dict[str, Any]:
    return {
        name: _write_dict(writer, each, depth + 2, ".{}") if type(each) is dict else each for name, each in rest.items()
    }


def _write_plain(writer: Writer, data: Any, depth: int) -> Any:
    return _write_dict(writer, data, depth, ".{}") if type(data) is dict else writer.node(data, depth + 1)


def _write_mapping(tag: str) -> Callable[[Writer, Any, int], Any]:
    return lambda writer, data, depth: writer.tag(tag, _flat(writer, data, depth))


def _write_defaultdict(writer: Writer, data: defaultdict[Any, Any], depth: int) -> Any:
    factory = data.default_factory
    name = next((name for name, each in FACTORIES.items() if each is factory), None)
    if name is None:
        raise NotWritable(f"it is a defaultdict whose default factory {factory!r:.80} has no stored form; use a dict")
    return writer.tag("$defaultdict", [name, _flat(writer, data, depth + 1)])


def _write_deque(writer: Writer, data: deque[Any], depth: int) -> Any:
    try:
        return writer.tag("$deque", [data.maxlen, _write_list(writer, list(data), depth + 2)])
    except NotWritable as refused:
        refused.containers.append(id(data))
        raise


def _write_slice(writer: Writer, data: slice, depth: int) -> Any:
    return writer.tag("$slice", _write_list(writer, [data.start, data.stop, data.step], depth + 1))


def _refuse_depth() -> NoReturn:
    raise NotWritable(f"it nests deeper than {MAX_DEPTH} levels; flatten it")


_WALKERS: Final[dict[type, Callable[[Writer, Any, int], Any]]] = {
    dict: _write_dict,
    list: _write_list,
    FixedDict: lambda writer, data, depth: _write_dict(writer, dict(data), depth),
    FixedList: lambda writer, data, depth: _write_list(writer, list(data), depth),
    tuple: _write_tuple,
    set: _write_set,
    frozenset: _write_set,
    float: _write_float,
    str: _write_str,
    int: _write_int,
}
_HOLDERS: Final[dict[type, Callable[[Writer, Any, int], Any]]] = {
    OrderedDict: _write_mapping("$ordered"),
    Counter: _write_mapping("$counter"),
    defaultdict: _write_defaultdict,
    deque: _write_deque,
    slice: _write_slice,
}
"""Containers that a registration of the caller's comes before."""
