"""Decorated methods: bound like functions, and what they offer beside being called is bound as well.

A decorated function outside of a class stays a plain function, because calls of functions are the fastest. In a class
body it becomes a descriptor: an attribute of a bound method does not know what the method is bound to.
"""

import functools
import inspect
import sys
from collections.abc import Callable
from typing import Any, Final

from agent_service.infrastructure.cache.calls.cached_function import OPERATIONS

__all__ = ["BoundCall", "CachedClassMethod", "CachedMethod", "is_defined_in_class"]

_CLASSMETHOD_BINDS: Final = sys.version_info < (3, 13)
"""Whether ``classmethod`` lets a descriptor below it bind itself."""


def is_defined_in_class(function: Callable[..., Any]) -> bool:
    """Whether the function was defined in a class body."""
    owner = function.__qualname__.rpartition(".")[0]
    return owner != "" and not owner.endswith("<locals>")


class BoundCall(functools.partial[Any]):
    """A decorated function with its first argument. A partial, which costs a call no step in Python."""

    def __get__(self, _instance: object, _owner: type | None = None) -> "BoundCall":
        return self

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.func, name)
        return functools.partial(found, *self.args) if name in OPERATIONS and name != "cache_info" else found

    @property
    def __signature__(self) -> inspect.Signature:
        return inspect.signature(functools.partial(self.func, *self.args))

    @property
    def __self__(self) -> object:
        """What it is bound to."""
        return self.args[0]

    @property
    def __func__(self) -> Callable[..., Any]:
        """The function that is bound."""
        return self.func

    def __eq__(self, other: object) -> bool:
        return isinstance(other, BoundCall) and self.func is other.func and self.args[0] is other.args[0]

    def __hash__(self) -> int:
        return hash((self.func, id(self.args[0])))

    def __reduce__(self) -> tuple[Any, ...]:
        return getattr, (self.args[0], self.func.__name__)

    def __repr__(self) -> str:
        return f"<bound cached {self.func.__qualname__} of {self.args[0]!r}>"


class CachedMethod(staticmethod):  # type: ignore[type-arg] # a kind of attribute that frameworks leave alone
    """A decorated function in a class body. Binds to the instance; through the class it is the function itself.

    ``staticmethod`` is what makes pydantic and others take it for a method, and makes it callable.
    """

    def __get__(self, instance: object, _owner: type | None = None) -> Callable[..., Any]:
        return self.__func__ if instance is None else BoundCall(self.__func__, instance)

    def __getattr__(self, name: str) -> Any:
        if name in OPERATIONS and not _CLASSMETHOD_BINDS and self.__code__.co_varnames[:1] == ("cls",):
            raise TypeError(f"put @cached above @classmethod on {self.__qualname__}: below it, .{name} has no class")
        return getattr(self.__func__, name)


class CachedClassMethod(classmethod):  # type: ignore[type-arg]
    """A decorated ``classmethod``."""

    def __get__(self, instance: object, owner: type | None = None) -> Callable[..., Any]:
        return BoundCall(self.__func__, type(instance) if owner is None else owner)
