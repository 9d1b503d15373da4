"""What a call of a decorated function is called in the cache: its key and its tags.

Both are made of the arguments, which takes several microseconds; calls whose arguments are scalars, and small, are
remembered, so that a hit in Redis makes neither again.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import date
from itertools import chain
from typing import Any, NamedTuple
from uuid import UUID

from agent_service.core.arguments import CallSignature, Template
from agent_service.core.errors import CacheKeyError
from agent_service.core.identity import identity_digest
from agent_service.core.keys import check_key, glob_escape
from agent_service.core.memo import Memo, size_of
from agent_service.infrastructure.cache.loads.context import CallContext, Unset
from agent_service.infrastructure.cache.loads.policy import check_tags

__all__ = ["SCALARS", "CallName", "CallNames", "CallTags", "KeySpec", "every_context"]

SCALARS = frozenset({str, int, bool, bytes, type(None), UUID, date, Unset})
"""Types whose equal values mean the same. Not float: 0.0 == -0.0. Not datetime: one moment in two time zones."""

_MOST_REMEMBERED = 10_000

_rendered: dict[tuple[str, str], str] = {}
"""Which function owns a stem with rendered keys: (namespace, stem) -> qualified name."""
_told_apart: set[str] = set()
"""The stems whose rendered keys are followed by a digest of context variables, in whatever cache: one decorator may be
given a cache, and the other its namespace.
"""
_DIGEST_GLOB = "?" * 32


def every_context(key: str) -> str | None:
    """Return the pattern of the keys that decorated functions of this process make of a rendered key by their context
    variables; None where none does.
    """
    if any(key.startswith(f"{stem}:") for stem in tuple(_told_apart)):
        return f"{glob_escape(key)}:{_DIGEST_GLOB}"
    return None


@dataclass(frozen=True, slots=True)
class KeySpec:
    """How the key of a call is made; the parameters of ``@cached`` say what each means."""

    prefix: str
    include_args: bool
    key: str | Callable[..., str] | None
    ignore: Iterable[str]
    context: CallContext


class CallTags:
    """What ``tags=`` of a decorator says. False when it says nothing.

    :param tags: templates over the parameters of ``function``, or a function of its result and arguments.
    :raises CacheKeyError: for one str in place of several, and for templates that cannot be used.
    """

    def __init__(self, tags: str | Iterable[str] | Callable[..., Iterable[str]], function: Callable[..., Any]) -> None:
        if isinstance(tags, str):
            raise CacheKeyError(f"tags must be several templates, not one str; write tags=[{tags!r}]")
        self.of_result = tags if callable(tags) else None
        """The function of the result and the arguments that decides them, if there is one."""
        self._templates = () if callable(tags) else tuple([Template(each, function) for each in tags])

    @property
    def parameters(self) -> set[str]:
        """The names of the parameters that the templates need."""
        return {name for each in self._templates for name in each.parameters}

    def __bool__(self) -> bool:
        return bool(self._templates) or self.of_result is not None

    def of_call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[str, ...]:
        """Return the tags that the arguments decide.

        :raises CacheKeyError: for a value that has no text, or a tag that is empty or too long.
        """
        return check_tags([each.fill(args, kwargs) for each in self._templates]) if self._templates else ()


class CallName(NamedTuple):
    """The key of a call, and those of its tags that the arguments decide."""

    key: str
    tags: tuple[str, ...]
    identity: tuple[object, ...] | None
    """What tells this call from others, where its arguments and context variables are scalars and small."""


class CallNames:
    """The names of one function's calls.

    :raises CacheKeyError: for a specification that cannot be used, or that would share keys with another function's.
    """

    def __init__(self, function: Callable[..., Any], spec: KeySpec, tags: CallTags, namespace: str) -> None:
        self._function = function
        self._qualified = f"{function.__module__}.{function.__qualname__}"
        self._tags = tags or None
        self.context = spec.context
        """The context variables that tell calls apart."""
        self._sees_context = bool(spec.context)
        self._signature = CallSignature(function, ignore=spec.ignore)
        self.signature = self._signature.own
        """What calls of the function itself must match."""
        self.parameters = self._signature.names if spec.include_args else ()
        """The parameters that tell calls apart."""
        prefix = () if spec.prefix == "" else (check_key(spec.prefix, name="key_prefix"),)
        self._stem = ":".join((*prefix, function.__name__))
        self._include_args = spec.include_args
        template = Template(spec.key, function) if spec.key is not None and not callable(spec.key) else None
        self._render: Callable[..., object] | None = spec.key if callable(spec.key) else None
        if template is not None:
            self._render = lambda *args, **kwargs: template.render(args, kwargs)
        if self._render is not None:
            self._own_stem(namespace)
        needs = tags.parameters if template is None else tags.parameters | template.parameters
        self.can_remember = not callable(spec.key) and needs <= set(self.parameters)
        """Whether calls with the same values of :attr:`parameters` and :attr:`context` have the same name."""
        self._remembered: Memo[tuple[object, ...] | None, CallName] = Memo(_MOST_REMEMBERED)
        self.known = self._remembered.known
        """Names by the types and values, in turn, of the arguments and context variables that tell calls apart."""

    def _own_stem(self, namespace: str) -> None:
        """Claim the stem: rendered keys do not tell functions apart."""
        owner = _rendered.setdefault((namespace, self._stem), self._qualified)
        if owner != self._qualified:
            raise CacheKeyError(
                f"{self._qualified} and {owner} would share the keys {self._stem!r}:...; "
                "give one of them another key_prefix or namespace"
            )
        if self._sees_context:
            _told_apart.add(self._stem)

    def key(self, *args: Any, **kwargs: Any) -> str:
        """Return the key of a call."""
        return self._key(args, kwargs, self._values(args, kwargs))

    def make(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], identity: tuple[object, ...] | None = None
    ) -> CallName:
        """Return the name of a call, and remember it where it may be looked up in :attr:`known`.

        :param identity: what may be a key of :attr:`known`, where the arguments were bound before; else None.
        """
        values = self._values(args, kwargs) if identity is None else identity[1 : 2 * len(self.parameters) : 2]
        key = self._key(args, kwargs, values)
        tags = self._tags.of_call(args, kwargs) if self._tags else ()
        if not self.can_remember:
            return CallName(key, tags, None)
        telling = (*values, *self.context.values()) if self._sees_context else values
        if not SCALARS.issuperset(map(type, telling)):
            return CallName(key, tags, None)
        if identity is None:
            identity = tuple(chain.from_iterable(zip(map(type, telling), telling, strict=True)))
        size = size_of((*telling, key, *tags))
        if not self._remembered.keeps(size):
            return CallName(key, tags, None)
        name = CallName(key, tags, identity)
        self._remembered.keep(identity, name, size)
        return name

    def _values(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
        """Return the values of :attr:`parameters`."""
        return self._signature.values(args, kwargs) if self.parameters else ()

    def _key(self, args: tuple[Any, ...], kwargs: dict[str, Any], values: tuple[Any, ...]) -> str:
        seen = self.context.digest() if self._sees_context else ""
        if self._render is None:
            if self._include_args:
                return f"{self._stem}:{self._signature.digest_of(values, seen)}"
            return f"{self._stem}:{identity_digest(self._qualified, seen.encode())}"
        rendered = self._render(*args, **kwargs)
        if not isinstance(rendered, str):
            raise CacheKeyError(
                f"key= of {self._qualified} must return a str, not {type(rendered).__name__}: {rendered!r:.80}"
            )
        return check_key(f"{self._stem}:{rendered}:{seen}" if seen else f"{self._stem}:{rendered}")
