"""Conditions about JSON values, as filters state them: numbers are compared as numbers, structures as structures.

A filter is a conjunction. Each condition looks at one place of a value; what is not there counts as null. Numbers are
the decimals that they are written as, so ``1`` and ``1.0`` are equal, as are ``10**23`` and ``1e23``; ``true`` is no
number. Both engines decide alike: PostgreSQL by jsonb, SQLite by :func:`holds`.
"""

import operator
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from typing import Any, Final, NamedTuple

from agent_service.core.errors import SessionValueError
from agent_service.infrastructure.database.values.documents import MAX_DEPTH, check_value, path_name
from agent_service.infrastructure.database.values.validation import require_text

__all__ = ["ORDERS", "Condition", "holds", "read_filter"]

ORDERS: Final[Mapping[str, Callable[[Any, Any], bool]]] = {
    "$gt": operator.gt,
    "$gte": operator.ge,
    "$lt": operator.lt,
    "$lte": operator.le,
}
"""Operators that compare a number with a number, or a text with a text by code points; anything else is no match."""
_OPERATORS: Final = frozenset({"$eq", "$ne", *ORDERS})


class Condition(NamedTuple):
    """What holds at one place of a value.

    :param path: keys of objects, and indexes of lists.
    :param operator: one of a filter, "object" (it is one), or "list" (it is one of ``operand`` elements).
    """

    path: tuple[str | int, ...]
    operator: str
    operand: Any


def read_filter(filter_: Any) -> list[Condition]:
    """Return the conditions of a filter.

    ::

        {"status": "open", "score": {"$gte": 0.5}, "profile": {"city": "Oslo"}, "tags": ["a", "b"]}

    A value stands for what is equal to it: a list for one that is equal element by element, and a dict for an object
    with at least these entries. A dict of operators states what they say.

    :raises SessionValueError: it is no filter, or has an unknown operator or an operand that cannot be compared.
    """
    if not isinstance(filter_, Mapping):
        raise SessionValueError(f"filter must be a dict, got {type(filter_).__name__} {filter_!r:.80}")
    return [each for key, wanted in filter_.items() for each in _read((_key(key),), wanted)]


def _key(key: Any) -> str:
    return require_text(key, "a key of filter")


def _read(path: tuple[str | int, ...], wanted: Any) -> Iterator[Condition]:
    if len(path) > MAX_DEPTH:
        raise SessionValueError(f"filter is nested more than {MAX_DEPTH} levels deep")
    if isinstance(wanted, Mapping):
        if any(isinstance(each, str) and each.startswith("$") for each in wanted):
            for name, operand in wanted.items():
                yield _operation(path, name, operand)
            return
        yield Condition(path, "object", None)
        for key, each in wanted.items():
            yield from _read((*path, _key(key)), each)
    elif isinstance(wanted, list | tuple):
        yield Condition(path, "list", len(wanted))
        for index, each in enumerate(wanted):
            yield from _read((*path, index), each)
    else:
        yield Condition(path, "$eq", check_value(wanted, path_name("filter", path), nul=False))


def _operation(path: tuple[str | int, ...], name: Any, operand: Any) -> Condition:
    place = path_name("filter", path)
    if name not in _OPERATORS:
        raise SessionValueError(f"{place} has the operator {name!r:.80}; there are {', '.join(sorted(_OPERATORS))}")
    if name in ORDERS and (isinstance(operand, bool) or not isinstance(operand, int | float | str)):
        raise SessionValueError(f"{place} compares by {name} with {type(operand).__name__}; give a number or a text")
    return Condition(path, name, check_value(operand, f"{place}[{name}]", nul=False))


def holds(value: Any, condition: Condition) -> bool:
    """Whether a condition holds for a decoded JSON value."""
    found = _at(value, condition.path)
    match condition.operator:
        case "object":
            return isinstance(found, dict)
        case "list":
            return isinstance(found, list) and len(found) == condition.operand
        case "$eq":
            return _equal(found, condition.operand)
        case "$ne":
            return not _equal(found, condition.operand)
    pair = (found, condition.operand)
    if all(map(_is_number, pair)):
        return ORDERS[condition.operator](*map(_decimal, pair))
    return all(isinstance(each, str) for each in pair) and ORDERS[condition.operator](*pair)


def _at(value: Any, path: tuple[str | int, ...]) -> Any:
    for step in path:
        if isinstance(step, str):
            value = value.get(step) if isinstance(value, dict) else None
        else:
            value = value[step] if isinstance(value, list) and step < len(value) else None
    return value


def _equal(left: Any, right: Any) -> bool:
    if _is_number(left) and _is_number(right):
        return left == right if type(left) is type(right) else _decimal(left) == _decimal(right)
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(_equal(left[key], right[key]) for key in left)
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(_equal, left, right))
    return type(left) is type(right) and bool(left == right)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _decimal(number: int | float) -> Decimal:
    return Decimal(number) if isinstance(number, int) else Decimal(repr(number))
