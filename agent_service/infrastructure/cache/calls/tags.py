"""The tags of a decorated function's entries, from the arguments of a call or from its result."""

import functools
from collections.abc import Callable, Iterable
from typing import Any

from agent_service.core.arguments import Template
from agent_service.core.errors import CacheKeyError
from agent_service.infrastructure.cache.loads.policy import check_tags

__all__ = ["CallTags"]


class CallTags:
    """What ``tags=`` of a decorator says. False when it says nothing.

    :param tags: templates over the parameters of ``function``, or a function of its result and arguments.
    :raises CacheKeyError: for one str in place of several, and for templates that cannot be used.
    """

    def __init__(self, tags: str | Iterable[str] | Callable[..., Iterable[str]], function: Callable[..., Any]) -> None:
        if isinstance(tags, str):
            raise CacheKeyError(f"tags must be several templates, not one str; write tags=[{tags!r}]")
        self._of_result = tags if callable(tags) else None
        self._templates = () if callable(tags) else tuple([Template(each, function) for each in tags])

    @property
    def parameters(self) -> set[str]:
        """The names of the parameters that the templates need."""
        return {name for each in self._templates for name in each.parameters}

    def __bool__(self) -> bool:
        return bool(self._templates) or self._of_result is not None

    def of_call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[str, ...]:
        """Return the tags that the arguments decide.

        :raises CacheKeyError: for a value that has no text, or a tag that is empty or too long.
        """
        return check_tags([each.fill(args, kwargs) for each in self._templates]) if self._templates else ()

    def of_result(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Callable[[Any], Iterable[str]] | None:
        """Return the function of the result that decides them, if there is one."""
        decide = self._of_result
        if decide is None:
            return None
        return functools.partial(_decide, decide, args, kwargs)


def _decide(decide: Callable[..., Iterable[str]], args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> Any:
    return decide(result, *args, **kwargs)
