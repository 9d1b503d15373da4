"""Copies of an exception, where several callers wait for one piece of work that fails.

Each of them raises it in its own frames, which Python records in the exception itself; one object that all of them
raise would collect the frames, the notes and the contexts of all. So each gets a copy.

A copy is made as :mod:`copy` makes it: the class is called with the exception's arguments, and gets its attributes. A
class that does not allow that, or gives an exception of another class, is not copied: the exception itself is shared.
"""

import copy
from typing import TypeVar

__all__ = ["bare_copy", "copy_for_another"]

E = TypeVar("E", bound=BaseException)


def copy_for_another(exc: E) -> E:
    """Return an exception for one more caller: what it would have been had the caller been alone.

    It has the cause, the context and the traceback of the original.
    """
    copied = _copied(exc)
    if copied is None:
        return exc
    copied.__cause__, copied.__context__ = exc.__cause__, exc.__context__
    copied.__suppress_context__ = exc.__suppress_context__
    return copied.with_traceback(exc.__traceback__)


def bare_copy(exc: E) -> E:
    """Return an exception to be kept: without traceback, cause and context, which would keep the frames of all alive.

    From an exception that cannot be copied its traceback is taken.
    """
    return _copied(exc) or exc.with_traceback(None)


def _copied(exc: E) -> E | None:
    try:
        copied = copy.copy(exc)
    except Exception:  # noqa: BLE001 - whatever the class raises: it cannot be copied
        return None
    if type(copied) is not type(exc) or copied is exc:
        return None
    notes = getattr(exc, "__notes__", None)
    if isinstance(notes, list):
        copied.__notes__ = notes.copy()
    return copied
