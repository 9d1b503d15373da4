"""What a forked process makes anew: locks that another thread of its parent may have held at the fork.

A fork copies one thread. A lock that any other thread held stays locked in the child for ever, and what that lock
guards may be half written.
"""

import atexit
import os
import weakref
from collections.abc import Callable
from types import MethodType

__all__ = ["renew_after_fork"]

_renewals: "set[weakref.ref[Callable[[], None]]]" = set()


def renew_after_fork(renew: Callable[[], None]) -> None:
    """Call ``renew`` in every process that is forked from this one, before anything else runs there.

    Only a weak reference is kept, to the object of a bound method or to a function.
    """
    kind = weakref.WeakMethod if isinstance(renew, MethodType) else weakref.ref
    _renewals.add(kind(renew, _renewals.discard))


def _renew_all() -> None:
    for reference in tuple(_renewals):
        renew = reference()
        if renew is not None:
            renew()


os.register_at_fork(after_in_child=_renew_all)
atexit.register(_renewals.clear)  # a WeakMethod that outlives the weakref module reports an error when it dies
