"""Renew what a forked process cannot use: locks that another thread of the parent may have held at the fork.

A fork copies one thread. A lock that any other thread held stays locked in the child for ever, and the data that it
guards may be half written.
"""

import os
import weakref
from collections.abc import Callable
from types import MethodType
from typing import Any

__all__ = ["renew_after_fork"]


class _Renewal(weakref.ref[Any]):
    """A weak reference to what is renewed. Not a ``WeakMethod``, which writes to stderr when the interpreter exits."""

    __slots__ = ("method",)
    __hash__ = object.__hash__  # one object may have several renewals
    __eq__ = object.__eq__

    method: Callable[[Any], None] | None

    def renew(self) -> None:
        subject = self()
        if subject is not None:
            subject() if self.method is None else self.method(subject)


_renewals: set[_Renewal] = set()


def renew_after_fork(renew: Callable[[], None]) -> None:
    """Call ``renew`` in every process that is forked from this one, before anything else runs there.

    Only a weak reference is kept, to the object of a bound method or to a function.
    """
    renewal = _Renewal(renew.__self__ if isinstance(renew, MethodType) else renew, _renewals.discard)
    renewal.method = renew.__func__ if isinstance(renew, MethodType) else None
    _renewals.add(renewal)


def _renew_all() -> None:
    for renewal in tuple(_renewals):
        renewal.renew()


os.register_at_fork(after_in_child=_renew_all)
