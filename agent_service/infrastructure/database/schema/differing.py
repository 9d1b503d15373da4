"""Differences between tables and models, in words."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final

__all__ = ["in_words"]


def in_words(found: Iterable[Any]) -> Iterator[str]:
    """Yield a sentence for each change that Alembic's ``compare_metadata`` found, from what is there to the models."""
    for each in found:
        for change in each if isinstance(each, list) else [each]:
            kind, *rest = change
            words = _WORDS.get(kind)
            yield f"{kind.replace('_', ' ')}: {', '.join(map(str, rest))}" if words is None else words(rest)


def _table(rest: Sequence[Any]) -> str:
    return f"the table {rest[0].name}"


def _column(rest: Sequence[Any]) -> str:
    return f"the column {rest[2].name} of {rest[1]}"


def _index(rest: Sequence[Any]) -> str:
    columns = ", ".join(getattr(each, "name", None) or str(each) for each in rest[0].expressions)
    return f"the {'unique ' if rest[0].unique else ''}index {rest[0].name} on {rest[0].table.name} ({columns})"


def _constraint(rest: Sequence[Any]) -> str:
    columns = ", ".join(each.name for each in rest[0].columns)
    name = f" {rest[0].name}" if rest[0].name else ""
    return f"the constraint{name} on {rest[0].table.name} ({columns})"


def _foreign_key(rest: Sequence[Any]) -> str:
    goals = ", ".join(each.target_fullname for each in rest[0].elements)
    return f"{_constraint(rest).replace('constraint', 'foreign key', 1)} to {goals}"


def _missing(thing: Callable[[Sequence[Any]], str]) -> Callable[[Sequence[Any]], str]:
    return lambda rest: f"{thing(rest)} is missing"


def _surplus(thing: Callable[[Sequence[Any]], str]) -> Callable[[Sequence[Any]], str]:
    return lambda rest: f"{thing(rest)} is not the package's"


def _changed(rest: Sequence[Any]) -> str:
    """Describe one changed property of a column; the last two are what it is and what it should be."""
    return f"the column {rest[2]} of {rest[1]}"


_WORDS: Final[dict[str, Callable[[Sequence[Any]], str]]] = {
    "add_table": _missing(_table),
    "remove_table": _surplus(_table),
    "add_column": _missing(_column),
    "remove_column": _surplus(_column),
    "add_index": _missing(_index),
    "remove_index": _surplus(_index),
    "add_constraint": _missing(_constraint),
    "remove_constraint": _surplus(_constraint),
    "add_fk": _missing(_foreign_key),
    "remove_fk": _surplus(_foreign_key),
    "modify_type": lambda rest: f"{_changed(rest)} has the type {rest[-2]}, not {rest[-1]}",
    "modify_nullable": lambda rest: f"{_changed(rest)} {'allows' if rest[-2] else 'refuses'} NULL",
    "modify_default": lambda rest: f"{_changed(rest)} has another default",
}
