"""Changes of a context document, as functions of it, so that every engine does exactly the same.

Each function returns a new document and leaves its argument unchanged.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from agent_service.core.errors import SessionValueError

__all__ = ["ContextChange", "at_path", "incremented", "merged", "require_path"]

ContextChange = Callable[[dict[str, Any]], dict[str, Any]]
Path = tuple[str | int, ...]


def merged(patch: Mapping[str, Any], delete_keys: Iterable[str], *, deep: bool) -> ContextChange:
    """Remove ``delete_keys`` and add ``patch``; ``deep`` merges objects into objects instead of replacing them."""

    def change(context: dict[str, Any]) -> dict[str, Any]:
        left = {key: value for key, value in context.items() if key not in delete_keys}
        return _deeply(left, patch) if deep else {**left, **patch}

    return change


def _deeply(base: Mapping[str, Any], patch: Mapping[str, Any]) -> dict[str, Any]:
    result = dict(base)
    for key, value in patch.items():
        below = result.get(key)
        result[key] = _deeply(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return result


def at_path(path: Path, value: Any) -> ContextChange:
    """Set ``value`` at the path. Missing objects on the way are created; lists have to be long enough."""
    return lambda context: _set(context, path, 0, value)


def _set(container: Any, path: Path, place: int, value: Any) -> Any:
    if place == len(path):
        return value
    step = path[place]
    if isinstance(container, dict) and isinstance(step, str):
        return {**container, step: _set(container.get(step, {}), path, place + 1, value)}
    if isinstance(container, list) and isinstance(step, int) and step < len(container):
        changed = list(container)
        changed[step] = _set(container[step], path, place + 1, value)
        return changed
    held = "a dict" if isinstance(container, dict) else f"a {type(container).__name__}"
    if isinstance(container, list):
        held = f"a list of {len(container)}"
    raise SessionValueError(
        f"path {list(path)!r:.200} cannot be followed: there is {held} where {step!r:.80} should be"
    )


def incremented(key: str, amount: float) -> ContextChange:
    """Add ``amount`` to the number under ``key``; a missing one counts as 0."""

    def change(context: dict[str, Any]) -> dict[str, Any]:
        stored = context.get(key, 0)
        if isinstance(stored, bool) or not isinstance(stored, int | float):
            raise SessionValueError(f"context[{key!r:.80}] is no number but {stored!r:.80}; set it before counting")
        try:
            total = stored + amount
        except OverflowError:
            total = math.inf
        if not math.isfinite(total):
            raise SessionValueError(
                f"context[{key!r:.80}] would leave the range of numbers: {stored!r:.80} + {amount!r}"
            )
        return {**context, key: total}

    return change


def require_path(path: Any) -> Path:
    """Return the steps of a path: ``"a.b"``, or a list of keys and list positions where keys hold dots."""
    steps = path.split(".") if isinstance(path, str) else path
    if isinstance(steps, bytes) or not isinstance(steps, Sequence) or not steps:
        raise SessionValueError(f"path must be a text such as 'a.b' or a list of keys and positions, got {path!r:.80}")
    for index, step in enumerate(steps):
        if isinstance(step, bool) or not (isinstance(step, str) or (isinstance(step, int) and step >= 0)):
            raise SessionValueError(f"path[{index}] must be a key or a position from 0, got {step!r:.80}")
    return tuple(steps)
