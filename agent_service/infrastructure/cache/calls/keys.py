"""What a call of a decorated function is called in the cache: its key and its tags.

Both are made of the arguments, which takes several microseconds; calls whose arguments are scalars, and small, are
remembered, so that a hit in Redis makes neither again.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

from agent_service.core.arguments import CallSignature, Template, identity_digest
from agent_service.core.errors import CacheKeyError
from agent_service.core.keys import check_key, glob_escape
from agent_service.core.memo import Memo, size_of
from agent_service.infrastructure.cache.calls.compiled import identity_of
from agent_service.infrastructure.cache.calls.tags import CallTags
from agent_service.infrastructure.cache.loads.context import CallContext

__all__ = ["CallName", "CallNames", "KeySpec", "every_context"]

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
        self._tags = tags
        self.context = spec.context
        """The context variables that tell calls apart."""
        self._signature = CallSignature(function, ignore=spec.ignore)
        self._remembered: Memo[tuple[object, ...], CallName] = Memo(_MOST_REMEMBERED)
        self.signature = self._signature.own
        """What calls of the function itself must match."""
        self.parameters = self._signature.names if spec.include_args else ()
        """The parameters that tell calls apart."""
        self._needs = set(tags.parameters)
        self.key = self._key_maker(spec, namespace)
        self.can_remember = not callable(spec.key) and self._needs <= set(self.parameters)
        """Whether calls with the same values of :attr:`parameters` and :attr:`context` have the same name."""

    def _key_maker(self, spec: KeySpec, namespace: str) -> Callable[..., str]:
        name = f"{self._function.__module__}.{self._function.__qualname__}"
        stem = self._function.__name__
        if spec.prefix != "":
            stem = f"{check_key(spec.prefix, name='key_prefix')}:{stem}"
        if spec.key is None:
            if not spec.include_args:
                if spec.context:
                    return lambda *_args, **_kwargs: f"{stem}:{identity_digest(name, spec.context.digest().encode())}"
                constant = f"{stem}:{identity_digest(name, b'')}"
                return lambda *_args, **_kwargs: constant
            if spec.context:
                return lambda *args, **kwargs: f"{stem}:{self._signature.digest(args, kwargs, spec.context.digest())}"
            return lambda *args, **kwargs: f"{stem}:{self._signature.digest(args, kwargs)}"
        template = None if callable(spec.key) else Template(spec.key, self._function)
        owner = _rendered.setdefault((namespace, stem), name)
        if owner != name:
            raise CacheKeyError(
                f"{name} and {owner} would share the keys {stem!r}:...; "
                "give one of them another key_prefix or namespace"
            )
        if template is None:
            given: Any = spec.key

            def make(*args: Any, **kwargs: Any) -> str:
                return f"{stem}:{_text(given(*args, **kwargs), name)}"
        else:
            self._needs |= set(template.parameters)

            def make(*args: Any, **kwargs: Any) -> str:
                return f"{stem}:{template.render(args, kwargs)}"

        if not spec.context:
            return lambda *args, **kwargs: check_key(make(*args, **kwargs))
        _told_apart.add(stem)
        return lambda *args, **kwargs: check_key(f"{make(*args, **kwargs)}:{spec.context.digest()}")

    def of(self, identity: tuple[object, ...] | None, args: tuple[Any, ...], kwargs: dict[str, Any]) -> CallName:
        """Return the name of a call.

        :param identity: what :func:`identity_of` would make of the values of :attr:`parameters` and of :attr:`context`,
            without a look at their types; None: it is not known.
        """
        if identity is not None:
            try:
                known = self._remembered.known.get(identity)
            except TypeError:  # an argument that cannot be hashed
                known = None
            if known is not None:
                return known
        return self._make(args, kwargs)

    def _make(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> CallName:
        identity = None
        if self.can_remember:
            values = self._signature.values(args, kwargs) if self.parameters else ()
            identity = identity_of((*values, *self.context.values()) if self.context else values)
        key, tags = self.key(*args, **kwargs), self._tags.of_call(args, kwargs)
        if identity is None:
            return CallName(key, tags, None)
        size = size_of((*identity[1::2], key, *tags))  # types stand between the values
        if not self._remembered.keeps(size):
            return CallName(key, tags, None)
        name = CallName(key, tags, identity)
        self._remembered.keep(identity, name, size)
        return name


def _text(key: object, function: str) -> str:
    if not isinstance(key, str):
        raise CacheKeyError(f"key= of {function} must return a str, not {type(key).__name__}: {key!r:.80}")
    return key
