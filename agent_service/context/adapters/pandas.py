"""Context about the columns, rows and cells of a table."""

from datetime import datetime
from typing import Any

from agent_service.context.adapters.base import BaseContextAdapter
from agent_service.context.interface import Key
from agent_service.core.errors import ContextKeyError

__all__ = ["PandasContextAdapter"]

_FORMS = "('column', c), ('row', r) or ('row', r, 'column', c)"


class PandasContextAdapter(BaseContextAdapter):
    """Keeps context about a DataFrame: keys are ``("column", c)``, ``("row", r)`` and ``("row", r, "column", c)``.

    ``c`` and ``r`` are labels of ``columns`` and ``index``; NumPy scalars and timestamps stand for the Python values
    they are equal to. Anything with ``columns`` and ``index`` will do, so pandas is not needed here.

    :param data: the DataFrame.
    :param context_store: where contexts are kept; None: a store in memory of its own.
    :raises ContextKeyError: for data without ``columns`` and ``index``.
    """

    def __init__(self, data: Any, context_store: Any = None) -> None:
        if not hasattr(data, "columns") or not hasattr(data, "index"):
            raise ContextKeyError(f"data must have columns and an index, which a {type(data).__name__} has not")
        super().__init__(data, context_store)

    def normalised(self, key: Any) -> Key:
        # A list has the pattern of a tuple, and is no key: it is not hashable.
        match key if isinstance(key, tuple) else None:
            case ("column" | "row" as axis, label):
                return (axis, _plain(label))
            case ("row", row, "column", column):
                return ("row", _plain(row), "column", _plain(column))
        raise ContextKeyError(f"key must be {_FORMS}, got {key!r:.200}")

    def exists(self, key: Any) -> bool:
        match key:
            case ("column", label):
                return label in self.data.columns
            case ("row", label):
                return label in self.data.index
            case (_, row, _, column):
                return row in self.data.index and column in self.data.columns
        return False

    def renamed(self, key: Any, old: Any, new: Any) -> Key | None:
        if len(old) != 2 or len(new) != 2 or old[0] != new[0]:
            raise ContextKeyError(f"a column is renamed to a column and a row to a row, not {old!r:.80} to {new!r:.80}")
        axis, label = old
        places = [place for place in range(0, len(key), 2) if key[place] == axis and key[place + 1] == label]
        if not places:
            return None
        name = list(key)
        name[places[0] + 1] = new[1]
        return tuple(name)


def _plain(label: Any) -> Any:
    """Return the plain Python value of a label."""
    if isinstance(label, tuple):
        return tuple(map(_plain, label))
    if isinstance(label, datetime) and hasattr(label, "to_pydatetime"):
        if label.nanosecond:  # type: ignore[attr-defined] # pandas' Timestamp
            raise ContextKeyError(f"the label {label!r} has nanoseconds, which Python's datetime has not; round it")
        return label.to_pydatetime()
    return label.item() if hasattr(label, "item") and getattr(label, "ndim", 1) == 0 else label
