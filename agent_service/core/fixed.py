"""Stored documents as they are read: dicts and lists that cannot be changed in place.

A change in place would be lost, because nothing compares a document with its stored form. So it is refused at once.
Otherwise they behave as dicts and lists: copies (``copy.deepcopy``, pickle) are plain, caches and stores keep plain
ones, and as arguments of a cached function they equal plain ones.
"""

from typing import Any, NoReturn

from agent_service.core.errors import SessionValueError

__all__ = ["FixedDict", "FixedList", "fixed", "plain"]

_CONTAINERS = (dict, list)


def _refuse(*_: Any, **__: Any) -> NoReturn:
    """Raise a SessionValueError, because the change would be lost."""
    raise SessionValueError(
        "a stored document cannot be changed in place: the change would be lost; use update_session_context() or "
        "update_session_metadata(), or assign a changed copy.deepcopy() of it and call SessionRepository.update(); "
        "messages are never changed"
    )


class FixedDict(dict[str, Any]):
    """A stored JSON object."""

    __slots__ = ()

    __setitem__ = __delitem__ = clear = pop = popitem = setdefault = update = _refuse

    def __ior__(self, other: Any) -> dict[str, Any]:  # type: ignore[override, misc]
        return {**self, **dict(other)}  # ``session.context |= {...}`` assigns the result

    def __copy__(self) -> dict[str, Any]:
        return dict(self)

    def __deepcopy__(self, _memo: dict[int, Any]) -> dict[str, Any]:
        return {key: plain(value) for key, value in self.items()}

    def __reduce__(self) -> tuple[Any, ...]:
        return dict, (plain(self),)


class FixedList(list[Any]):
    """A stored JSON array."""

    __slots__ = ()

    __setitem__ = __delitem__ = _refuse
    append = clear = extend = insert = pop = remove = reverse = sort = _refuse

    def __iadd__(self, other: Any) -> list[Any]:  # type: ignore[override, misc]
        return [*self, *other]

    def __imul__(self, count: Any) -> list[Any]:  # type: ignore[override, misc]
        return [*self] * count

    def __copy__(self) -> list[Any]:
        return list(self)

    def __deepcopy__(self, _memo: dict[int, Any]) -> list[Any]:
        return [plain(value) for value in self]

    def __reduce__(self) -> tuple[Any, ...]:
        return list, (plain(self),)


def fixed(value: Any) -> Any:
    """Return a JSON value as it is read: every dict and list in it replaced by a fixed one."""
    if isinstance(value, dict):
        document = FixedDict(value)
        for key, item in value.items():
            if isinstance(item, _CONTAINERS):
                dict.__setitem__(document, key, fixed(item))
        return document
    if isinstance(value, list):
        return FixedList([fixed(item) if isinstance(item, _CONTAINERS) else item for item in value])
    return value


def plain(value: Any) -> Any:
    """Return an independent copy of a JSON value, of plain dicts and lists."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    return value
