"""The context variables that a load may see: they tell calls apart like arguments, as the result depends on them."""

import contextvars
from collections.abc import Iterable
from hashlib import blake2b
from typing import Any, Final, TypeAlias

from agent_service.core.errors import CacheKeyError
from agent_service.core.identity import encode_argument

__all__ = ["UNSET", "CallContext", "Unset", "Variables"]

Variables: TypeAlias = tuple[contextvars.ContextVar[Any], ...]


class Unset:
    """The type of :data:`UNSET`."""


UNSET: Final = Unset()
"""The value of a variable that has none; differs from every other value."""


class CallContext:
    """The variables that tell the loads of one function, or of one ``get_or_load``, apart. False where there are none.

    :param variables: those the load may see.
    :param ignore: those of them that do not tell loads apart.
    :raises CacheKeyError: when ``ignore`` names another one.
    """

    def __init__(self, variables: Variables, ignore: Iterable[contextvars.ContextVar[Any]] = ()) -> None:
        for each in ignore:
            if each not in variables:
                raise CacheKeyError(f"ignore names the context variable {each.name!r}, which is not among context=")
        ignored = frozenset(ignore)
        self._variables = tuple(each for each in variables if each not in ignored)

    def __bool__(self) -> bool:
        return bool(self._variables)

    def values(self) -> tuple[object, ...]:
        """Return what the load would see now, defaults of the variables included."""
        return tuple([_value_of(each) for each in self._variables])

    def digest(self) -> str:
        """Return 128 bits in hexadecimal that belong to the present values alone.

        :raises CacheKeyError: naming the variable whose value has no stable identity, and the remedy.
        """
        parts: list[bytes] = []
        for variable, value in zip(self._variables, self.values(), strict=True):
            name = variable.name.encode("utf-8", "surrogatepass")
            parts.append(b"%d:%b" % (len(name), name))
            if value is not UNSET:
                parts.append(
                    encode_argument(
                        value,
                        variable.name,
                        kind="context variable",
                        remedy=f"give its class a __cache_key__() method, or say with ignore=[{variable.name}] that "
                        "results do not depend on it",
                    )
                )
        return blake2b(b"|".join(parts), digest_size=16).hexdigest()


def _value_of(variable: contextvars.ContextVar[Any]) -> object:
    try:
        return variable.get()
    except LookupError:
        return UNSET
