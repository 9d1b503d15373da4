"""The calls of a context store over objects that others wrote, which have some of them."""

import copy
import threading
from collections.abc import AsyncIterable, AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, TypeVar
from weakref import WeakValueDictionary

from agent_service.context.documents import (
    Document,
    Documents,
    EncodedDocument,
    as_document,
    as_pairs,
    holds,
    merged,
    own_document,
    takes_encoded,
)
from agent_service.context.key_locks import KeyLocks
from agent_service.context.keys import Key, encode_key, hide_one_another
from agent_service.context.lifetimes import refuse_ttl, resolve_store_ttl
from agent_service.context.outside.awaited import AwaitedMethod
from agent_service.context.outside.repository import require_methods
from agent_service.core.current_reads import reading_what_is_current
from agent_service.core.errors import ContextStoreError
from agent_service.core.plain_threads import PlainThreads
from agent_service.core.store_metrics import store_errors
from agent_service.core.ttl import TTL

__all__ = ["DERIVED", "OutsideCalls", "derived", "own_method"]

F = TypeVar("F", bound=Callable[..., Any])

DERIVED: Final = ("update", "get_many", "set_many", "delete_many", "compare_and_set")
"""The calls that are made of the others where an object does not have them."""

_THREADS: Final = 16
"""For the plain methods of one object: as many calls of it at once may wait."""

_shared: "Final[WeakValueDictionary[int, _Shared]]" = WeakValueDictionary()
_looking: Final = threading.Lock()


def derived(method: F) -> F:
    """Mark a method of an interface that calls :class:`OutsideCalls`, which must not call it back."""
    method.is_derived = True  # type: ignore[attr-defined]
    return method


def own_method(given: Any, name: str) -> Any:
    """Return a method that an object has of its own, not one that an interface derives; None where there is none."""
    method = getattr(given, name, None)
    return method if callable(method) and getattr(method, "is_derived", None) is not True else None


class OutsideCalls:
    """All calls of a context store, over any object with ``get``, ``set`` and ``delete``.

    * Methods may be coroutines or plain; plain ones run in threads, of which each object has 16 of its own, and what
      they return is awaited if it can be.
    * With ``list_keys`` it is a store, whose keys are passed on as they are. Without it is a repository: keys are text
      and cannot be listed.
    * ``update``, ``get_many``, ``set_many``, ``delete_many`` and ``compare_and_set`` are used where they are offered.
      Else bulk calls are calls in a row, and the others read and write under a lock of this process, unless the object
      has a version (:class:`~agent_service.context.outside.repository.VersionedDbRepository`); another process that
      writes the same key may get between.
    * It cannot expire entries, unless it says ``expires = True`` and each method that stores takes ``ttl=``.
    * Whatever it raises is the cause of a ContextStoreError that names its class.

    :param outside: the caller's; :meth:`aclose` closes it if it has a method of that name.
    :param name: of the argument it was given as, for the error.
    :raises ContextStoreError: for an object that lacks one of the three.
    """

    never_waits = False

    def __init__(self, outside: Any, name: str = "store") -> None:
        require_methods(outside, name)
        self.outside = outside
        self._name = type(outside).__name__
        self._shared = _shared_by(outside)
        self._locks = self._shared.locks
        self._methods = {
            each: AwaitedMethod(method, self._shared.threads, writes=not each.startswith(("get", "list")))
            for each in ("get", "set", "delete", "list_keys", "get_versioned", "set_versioned", "aclose", *DERIVED)
            if (method := own_method(outside, each)) is not None
        }
        inherited = {"get", "set", "delete"} - self._methods.keys()
        if inherited:  # from an interface of ours, whose methods would call this wrapper
            raise ContextStoreError(f"{self._name} does not write {', '.join(sorted(inherited))}; every store must")
        self._rereads = bool(getattr(outside, "restricts_keys", False))
        self.expires = getattr(outside, "expires", False) is True

    async def get(self, key: Key) -> Document | None:
        """Return what is stored under the key, or None."""
        self._text(key)
        return await self._get(key)

    @takes_encoded
    async def set(self, key: Key, value: Mapping[str, Any], *, ttl: TTL | None = None) -> None:
        """Store a value, in place of any other."""
        await self.store(key, value, ttl=ttl)

    async def store(self, key: Key, value: Mapping[str, Any], *, ttl: TTL | None = None) -> Document | None:
        """Do what :meth:`set` does, and return what is kept now as far as the object says so."""
        text, document, options = self._text(key), own_document(value), self._options(ttl)
        async with self._writing((text,)):
            kept = await self._call("write a context", "set", key, document, **options)
            return await self._kept(key, value if type(value) is EncodedDocument else document, kept)

    async def delete(self, key: Key) -> None:
        """Remove what is stored under the key."""
        async with self._writing((self._text(key),)):
            await self._call("delete a context", "delete", key)

    async def list_keys(self) -> list[Any]:
        """Return every key that holds a value."""
        if "list_keys" not in self._methods:
            raise ContextStoreError(f"{self._name} cannot list keys: it has no method list_keys; use a store that has")
        with store_errors(self._name, "list the keys of contexts"):
            found = await self._methods["list_keys"]()
            if isinstance(found, AsyncIterable):
                return [key async for key in found]
            if isinstance(found, Iterable) and not isinstance(found, str | bytes):
                return list(found)
        raise ContextStoreError(f"{self._name}.list_keys must return keys, not {found!r:.80}")

    async def update(self, key: Key, patch: Mapping[str, Any], *, drop_none: bool = False) -> Document:
        """Set the patch's top-level entries and return the whole that results."""
        text, news = self._text(key), merged(None, own_document(patch, "patch"), drop_none=drop_none)
        async with self._writing((text,)):
            if "update" in self._methods:
                kept = await self._call("update a context", "update", key, news)
                return _own(kept) if isinstance(kept, Mapping) else await self._get(key) or {}
            while True:
                present, version = await self._seen(key)
                result = merged(present, news, drop_none=False)
                kept, stored = await self._replace(key, result, version, {})
                if stored:
                    return kept or {}

    @takes_encoded
    async def compare_and_set(
        self, key: Key, value: Mapping[str, Any], *, expected: Mapping[str, Any] | None, ttl: TTL | None = None
    ) -> bool:
        """Store a value in place of the present one if that is as expected; return whether it was."""
        text, document, options = self._text(key), own_document(value), self._options(ttl)
        wanted = None if expected is None else as_document(expected, "expected")
        async with self._writing((text,)):
            if "compare_and_set" in self._methods:
                call = self._call(
                    "compare and set a context", "compare_and_set", key, document, expected=wanted, **options
                )
                return self._answer(await call, "compare_and_set")
            while True:
                present, version = await self._seen(key)
                if not holds(present, wanted):
                    return False
                if (await self._replace(key, document, version, options))[1]:
                    return True

    async def delete_if(self, key: Key, expected: Mapping[str, Any]) -> bool:
        """Remove what is stored under the key if it has these entries among its own; return whether it had."""
        async with self._writing((self._text(key),)):
            present = await self._get(key)
            if present is None or not holds(present, expected):
                return False
            await self._call("delete a context", "delete", key)
            return True

    async def get_many(self, keys: Iterable[Key]) -> dict[Any, Document]:
        """Return what is stored under those keys that hold something."""
        wanted = list(keys)
        for key in wanted:
            self._text(key)
        if wanted and "get_many" in self._methods and not hide_one_another(wanted):
            found = await self._call("read contexts", "get_many", wanted)
            if not isinstance(found, Mapping):
                raise ContextStoreError(f"{self._name}.get_many must return a mapping, not {found!r:.80}")
            return {key: self._document(found[key]) for key in wanted if found.get(key) is not None}
        singly = [(key, await self._get(key)) for key in wanted]
        return {key: each for key, each in singly if each is not None}

    @takes_encoded
    async def set_many(self, values: Documents, *, ttl: TTL | None = None) -> None:
        """Store values; when one of them is unusable, none."""
        options = self._options(ttl)
        texts = {self._text(key): (key, own_document(value)) for key, value in as_pairs(values)}
        documents = list(texts.values())
        async with self._writing(texts):
            if documents and "set_many" in self._methods and not hide_one_another(key for key, _ in documents):
                await self._call("write contexts", "set_many", dict(documents), **options)
                return
            for key, document in documents:
                await self._put(key, document, options)

    async def delete_many(self, keys: Iterable[Key]) -> int:
        """Remove what is stored under the keys; return how many held something."""
        wanted = {self._text(key): key for key in keys}
        async with self._writing(wanted):
            present = await self._present(list(wanted.values()))
            if present and "delete_many" in self._methods:
                await self._call("delete contexts", "delete_many", present)
                return len(present)
            for key in present:
                await self._call("delete a context", "delete", key)
            return len(present)

    async def aclose(self) -> None:
        """Close the object, if it can be closed."""
        if "aclose" in self._methods:
            await self._call("close a store", "aclose")

    @asynccontextmanager
    async def _writing(self, texts: Collection[str]) -> AsyncIterator[None]:
        """Hold keys that are written; what is read meanwhile decides what is written, so it must not lag."""
        async with self._locks.hold(texts):
            with reading_what_is_current():
                yield

    async def _get(self, key: Key) -> Document | None:
        found = await self._call("read a context", "get", key)
        return None if found is None else self._document(found)

    async def _present(self, keys: Sequence[Key]) -> list[Key]:
        if hide_one_another(keys):
            return [key for key in keys if await self._get(key) is not None]
        found = await self.get_many(keys)
        return [key for key in keys if key in found]

    async def _put(self, key: Key, document: Document, options: Mapping[str, Any]) -> Document | None:
        kept = await self._call("write a context", "set", key, document, **options)
        return await self._kept(key, document, kept)

    async def _kept(self, key: Key, document: Document, kept: Any) -> Document | None:
        if isinstance(kept, Mapping):
            return _own(kept)
        if self._rereads:
            return await self._get(key)
        # The object may have kept the very dictionary it was given, which is never an encoded document.
        return document if type(document) is EncodedDocument else copy.deepcopy(document)

    async def _seen(self, key: Key) -> tuple[Document | None, Any]:
        """What is stored, and the version that tells later whether it still is."""
        if "set_versioned" not in self._methods:
            return await self._get(key), None
        seen = await self._call("read a context", "get_versioned", key)
        if seen is None:
            return None, None
        if not isinstance(seen, tuple) or len(seen) != 2:
            raise ContextStoreError(
                f"{self._name}.get_versioned must return data and version or None, not {seen!r:.80}"
            )
        return self._document(seen[0]), seen[1]

    async def _replace(
        self, key: Key, document: Document, version: Any, options: Mapping[str, Any]
    ) -> tuple[Document | None, bool]:
        """Put a document in place of what was seen; return what is kept, and whether it still was."""
        if "set_versioned" not in self._methods:
            return await self._put(key, document, options), True
        stored = await self._call("write a context", "set_versioned", key, document, version, **options)
        if not self._answer(stored, "set_versioned"):
            return None, False
        return await self._kept(key, document, None), True

    def _answer(self, answer: Any, method: str) -> bool:
        if not isinstance(answer, bool):
            raise ContextStoreError(f"{self._name}.{method} must return True or False, not {answer!r:.80}")
        return answer

    def _document(self, found: Any) -> Document:
        return _own(as_document(found, f"what {self._name} returned"))

    def _text(self, key: Key) -> str:
        """The text of a key that the object can be given."""
        text = encode_key(key)
        if "list_keys" not in self._methods and not isinstance(key, str):
            raise ContextStoreError(
                f"key must be text for a repository such as {self._name}, not {type(key).__name__}: {key!r:.80}; "
                "use a store with list_keys"
            )
        return text

    def _options(self, ttl: TTL | None) -> dict[str, Any]:
        if not self.expires:
            refuse_ttl(ttl, f"{self._name} cannot expire entries")
        if ttl is None or not self.expires:
            return {}
        resolve_store_ttl(ttl, 0.0)
        return {"ttl": ttl}

    async def _call(self, action: str, method: str, *arguments: Any, **options: Any) -> Any:
        with store_errors(self._name, action):
            return await self._methods[method](*arguments, **options)


class _Shared:
    """What all wrappers of one object share."""

    def __init__(self) -> None:
        self.locks = KeyLocks()
        self.threads = PlainThreads(_THREADS, "outside-store")


def _shared_by(outside: Any) -> _Shared:
    """Return what the wrappers of an object share, the same for all who use it at one time."""
    with _looking:
        shared = _shared.get(id(outside))  # its holders hold the object, so no other has its number
        if shared is None:
            shared = _shared[id(outside)] = _Shared()
        return shared


def _own(document: Mapping[str, Any]) -> Document:
    return copy.deepcopy(dict(document))
