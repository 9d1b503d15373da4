"""The arguments of a call: bound as the function itself would bind them, digested into keys, filled into templates."""

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from pathlib import PurePath
from string import Formatter
from types import FunctionType
from typing import Any, Final, TypeAlias
from uuid import UUID

from agent_service.core.errors import CacheKeyError
from agent_service.core.identity import CallDigest
from agent_service.core.keys import escape_rendered, glob_escape

__all__ = ["CallSignature", "Template", "own_signature"]

Arguments: TypeAlias = tuple[Any, ...]
Keywords: TypeAlias = dict[str, Any]

_RENDERED: Final = (str, int, float, bool, type(None), UUID, Decimal, date, datetime, time, timedelta, PurePath)


class CallSignature:
    """Decides which calls of a function are the same call.

    ``f(1)``, ``f(a=1)`` and ``f(1, b=<its default>)`` are the same. The order of keywords does not matter. ``ignore``
    names parameters that do not distinguish calls, such as a database session.

    A wrapper (``functools.wraps``) is called with its own parameters, which may differ from those of the wrapped
    function: it may inject or remove some. Where it takes ``*args`` and ``**kwargs``, arguments are named as the
    wrapped function names them, so that a keyword and a position are still one call. But no default is filled in and
    no parameter is ignored, because nobody knows what the wrapper does with them.

    :raises CacheKeyError: if ``ignore`` names no parameter of the function.
    """

    def __init__(self, function: Callable[..., Any], *, ignore: Iterable[str] = ()) -> None:
        self._signature = self.own = own_signature(function)
        """The signature that a call of the function itself must match."""
        self._wrapped = _wrapped_signature(function, self._signature)
        self.is_wrapper = self._wrapped is not None
        """Whether the function is a wrapper that accepts any arguments."""
        qualified = f"{function.__module__}.{function.__qualname__}"
        parameters = self._signature.parameters
        if isinstance(ignore, str):
            raise CacheKeyError(f"ignore must be several parameter names, not a str; write ignore=[{ignore!r}]")
        ignored = frozenset(ignore)
        for name in ignored:
            if name not in parameters or self.is_wrapper:
                remedy = "decorate the function that it wraps" if self.is_wrapper else "correct it"
                raise CacheKeyError(
                    f"ignore names {name!r}, which is no parameter of {qualified}{self._signature}; {remedy}"
                )
        self.names = tuple(name for name in parameters if name not in ignored)
        """The parameters that distinguish calls, in the order of the signature."""
        self._kept = tuple(position for position, name in enumerate(parameters) if name not in ignored)
        self.digest_of = CallDigest(qualified, self.names)
        """Digests what :meth:`values` gives."""
        self._rests = tuple(_rests(parameters)) if _nameable(parameters) else ()

    def bind(self, args: Arguments, kwargs: Keywords) -> Arguments:
        """Return the value of every parameter, defaults included, in the order of the signature.

        :raises TypeError: as the call itself would.
        """
        if len(args) < len(self._rests):
            required, rest = self._rests[len(args)]
            given = kwargs.keys()
            if required <= given <= rest.keys():
                return (*args, *{**rest, **kwargs}.values())
        if self._wrapped is not None:
            return _named(self._wrapped, args, kwargs)
        bound = self._signature.bind(*args, **kwargs)
        bound.apply_defaults()
        return tuple(bound.arguments.values())

    def values(self, args: Arguments, kwargs: Keywords) -> Arguments:
        """Return the values of :attr:`names` in one call."""
        bound = self.bind(args, kwargs)
        return bound if len(self.names) == len(bound) else tuple([bound[position] for position in self._kept])

    def digest(self, args: Arguments, kwargs: Keywords, context: str = "") -> str:
        """Return 128 bits in hexadecimal: equal for the same call, different for other calls of this or any function.

        :param context: distinguishes calls beside the arguments.
        :raises CacheKeyError: naming the argument that has no stable identity, and the remedy.
        """
        return self.digest_of(self.values(args, kwargs), context)


def own_signature(function: Callable[..., Any]) -> inspect.Signature:
    """Return the signature that a call of the function itself must match, whatever it wraps."""
    inner = getattr(function, "__wrapped__", None)
    stated = vars(function).get("__signature__")
    if inner is not None and stated is not None and stated is vars(inner).get("__signature__"):
        # functools.wraps copied the statement of the inner function.
        bare = FunctionType(function.__code__, {}, "", function.__defaults__, function.__closure__)
        bare.__kwdefaults__ = function.__kwdefaults__
        return inspect.signature(bare)
    return inspect.signature(function, follow_wrapped=False)


def _wrapped_signature(function: Callable[..., Any], own: inspect.Signature) -> inspect.Signature | None:
    """Return the signature of the wrapped function, if the wrapper itself accepts any arguments."""
    kinds = [each.kind for each in own.parameters.values()]
    if kinds != [inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD]:
        return None
    inner = inspect.signature(function)
    return None if inner == own else inner


def _named(signature: inspect.Signature, args: Arguments, kwargs: Keywords) -> Arguments:
    """Return the arguments of a wrapper, by name where the wrapped function could be called with them."""
    try:
        return (), signature.bind_partial(*args, **kwargs).arguments
    except TypeError:
        return args, kwargs


def _nameable(parameters: Mapping[str, inspect.Parameter]) -> bool:
    """Return whether every parameter may be given by name: then binding only merges two dicts."""
    return all(each.kind in {each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY} for each in parameters.values())


def _rests(parameters: Mapping[str, inspect.Parameter]) -> Iterator[tuple[frozenset[str], Keywords]]:
    """For 0, 1, ... positional arguments, yield the other parameters that must be named, and all others' defaults."""
    positional = sum(each.kind is each.POSITIONAL_OR_KEYWORD for each in parameters.values())
    for count in range(positional + 1):
        rest = {name: each.default for name, each in list(parameters.items())[count:]}
        yield frozenset(name for name, default in rest.items() if default is inspect.Parameter.empty), rest


class Template:
    """A text with fields such as ``{user_id}`` or ``{user.id}``, filled from the arguments of a call.

    :raises CacheKeyError: if a field names no parameter of the function, or is more than a name and attributes.
    """

    def __init__(self, text: str, function: Callable[..., Any]) -> None:
        if not isinstance(text, str):
            raise CacheKeyError(f"a key template must be a str, not {type(text).__name__}: {text!r:.80}")
        self.text = text
        self._signature = CallSignature(function)
        self._parts: list[tuple[str, int, tuple[str, ...]]] = []
        try:
            parsed = list(Formatter().parse(text))
        except ValueError as exc:
            raise CacheKeyError(f"template {text!r:.80} cannot be read: {exc}; write {{{{ for a literal brace") from exc
        for literal, field, form, conversion in parsed:
            position, attributes = (-1, ()) if field is None else self._resolve(field, form, conversion)
            self._parts.append((literal, position, attributes))

    def _resolve(self, field: str, form: str | None, conversion: str | None) -> tuple[int, tuple[str, ...]]:
        root, *attributes = field.split(".")
        if form or conversion or not all(each.isidentifier() for each in (root, *attributes)):
            raise CacheKeyError(
                f"template {self.text!r:.80} has the field {{{field}}}; it must be a parameter or an attribute of one, "
                "as {user.id}, without index, conversion or format"
            )
        if root not in self._signature.names:
            known = ", ".join(self._signature.names) or "none"
            wrapper = " (those of a wrapper: decorate the function that it wraps)" if self._signature.is_wrapper else ""
            raise CacheKeyError(
                f"template {self.text!r:.80} has the field {{{field}}}, but the function has no parameter {root!r}; "
                f"its parameters: {known}{wrapper}"
            )
        return self._signature.names.index(root), tuple(attributes)

    @property
    def parameters(self) -> set[str]:
        """The names of the parameters that are filled in."""
        return {self._signature.names[position] for _, position, _ in self._parts if position >= 0}

    def render(self, args: Arguments, kwargs: Keywords) -> str:
        """Return the text with the values escaped by :func:`~agent_service.core.keys.escape_rendered`.

        :raises CacheKeyError: for a value that is no scalar, or lacks an attribute.
        """
        return self._fill(args, kwargs, escape_rendered)

    def fill(self, args: Arguments, kwargs: Keywords) -> str:
        """Return the text with the values as they are.

        :raises CacheKeyError: for a value that is no scalar, or lacks an attribute.
        """
        return self._fill(args, kwargs, str)

    def as_keys(self, args: Arguments, kwargs: Keywords) -> tuple[str, ...]:
        """Return the keys that may contain the values: as :meth:`render` writes them, and as they are."""
        return tuple(dict.fromkeys((self.render(args, kwargs), self._fill(args, kwargs, str))))

    def as_patterns(self, args: Arguments, kwargs: Keywords) -> tuple[str, ...]:
        """Return globs in which the values match only themselves: as :meth:`render` writes them, and as they are."""
        rendered = self._fill(args, kwargs, lambda text: glob_escape(escape_rendered(text)))
        return tuple(dict.fromkeys((rendered, self._fill(args, kwargs, glob_escape))))

    def _fill(self, args: Arguments, kwargs: Keywords, escape: Callable[[str], str]) -> str:
        values = self._signature.bind(args, kwargs)
        filled: list[str] = []
        for literal, position, attributes in self._parts:
            filled.append(literal)
            if position >= 0:
                field = ".".join((self._signature.names[position], *attributes))
                filled.append(escape(_as_text(_follow(values[position], attributes, field), field)))
        return "".join(filled)


def _follow(value: Any, attributes: tuple[str, ...], field: str) -> Any:
    for name in attributes:
        try:
            value = getattr(value, name)
        except AttributeError:
            raise CacheKeyError(
                f"field {{{field}}} of a key template: a {type(value).__qualname__} has no attribute {name!r}"
            ) from None
    return value


def _as_text(value: Any, field: str) -> str:
    if isinstance(value, Enum):
        value = value.value
    elif hasattr(type(value), "__cache_key__"):
        value = type(value).__cache_key__(value)
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, _RENDERED):
        return str(value)
    raise CacheKeyError(
        f"field {{{field}}} of a key template is a {type(value).__qualname__}, which has no short form; "
        "use an attribute of it that is a str, number, UUID or date, or leave key= out"
    )
