"""A decoded value that holds instances of classes, before its reader is known.

A reader that names no class gets plain data; a reader with an annotation gets the instances that it names.
"""

from typing import Any, Union

import orjson

from agent_service.core.errors import UndecodableError
from agent_service.core.values.conformity import Check, conforms
from agent_service.core.values.json_reader import read
from agent_service.core.values.known import Assembly, KnownClasses

__all__ = ["Stored", "Wanted", "plain"]


class Wanted:
    """What a reader wants the value to be.

    :param annotation: names the classes that may come back.
    :param self_class: what ``Self`` stands for in the annotation.
    """

    def __init__(self, annotation: Any, self_class: type | None = None) -> None:
        self._annotation = annotation
        self._self_class = self_class
        self._check: Check | None = None
        self.known = KnownClasses(annotation if self_class is None else Union[annotation, self_class])  # noqa: UP007 - of text

    def require(self, value: Any, unknown: str) -> None:
        """Refuse a value that has plain data where the annotation wants something else.

        :param unknown: the class that came back as plain data.
        :raises UndecodableError: if the annotation does not allow that.
        """
        if self._check is None:
            self._check = conforms(self._annotation, self._self_class) or _anything
        if not self._check(value):
            raise UndecodableError(f"it holds a {unknown}, which the annotation does not name")


class Stored:
    """The parsed JSON of one value. It can be read once, because reading changes it."""

    __slots__ = ("_named", "_node")

    def __init__(self, content: Any) -> None:
        self._named, self._node = content

    def payload(self) -> bytes:
        """Return the JSON that it was parsed from, if it was not read yet."""
        return orjson.dumps({"$whole": [self._named, self._node]})

    def plain(self) -> Any:
        """Return the value with plain data in place of instances.

        :raises UndecodableError: for damaged data, and for sets and dict keys that are not hashable as plain data.
        """
        return self.as_wanted(None)

    def as_wanted(self, wanted: Wanted | None) -> Any:
        """Return the value with the instances that are wanted.

        :raises UndecodableError: if the data is damaged, a class has changed since, or an instance has a class that the
            annotation does not name where it does not allow plain data.
        """
        try:
            build = Assembly(self._named, None if wanted is None else wanted.known)
            value = read(self._node, build)
            if wanted is not None and build.unknown:
                wanted.require(value, build.unknown[0])
        except UndecodableError:
            raise
        except Exception as exc:  # stored bytes may be hostile, and load functions are the caller's code
            raise UndecodableError(f"stored data cannot be read: {type(exc).__name__}: {exc!s:.200}") from exc
        return value


def plain(value: Any) -> Any:
    """Return a decoded value as a reader gets it that names no class.

    :raises UndecodableError: as :meth:`Stored.plain` does.
    """
    return value.plain() if type(value) is Stored else value


def _anything(_value: Any) -> bool:
    return True
