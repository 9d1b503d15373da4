"""What a forked process makes anew: locks that another thread of its parent may have held at the fork.

A fork copies one thread. A lock that any other thread held stays locked in the child for ever, and what that lock
guards may be half written.
"""

import os
import weakref
from collections.abc import Callable
from types import MethodType
from typing import Any

__all__ = ["renew_after_fork"]

_functions: list[Callable[[], None]] = []
_methods: "dict[int, tuple[weakref.ref[Any], Callable[[Any], None]]]" = {}
"""By the identity of the object, because it need not be hashable."""


def renew_after_fork(renew: Callable[[], None]) -> None:
    """Call ``renew`` in every process that is forked from this one, before anything else runs there.

    :param renew: a function, or a bound method whose object is not kept alive; one for each object.
    """
    if not isinstance(renew, MethodType):
        _functions.append(renew)
        return
    number = id(renew.__self__)
    methods = _methods  # At the end of the interpreter the module's own name may be gone before an object is.
    reference = weakref.ref(renew.__self__, lambda _: methods.pop(number, None))
    _methods[number] = reference, renew.__func__


def _renew_all() -> None:
    for function in _functions:
        function()
    for reference, method in tuple(_methods.values()):
        renewed = reference()
        if renewed is not None:
            method(renewed)


os.register_at_fork(after_in_child=_renew_all)
