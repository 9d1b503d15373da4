"""Context in a folder: one file a key, written so that a crash leaves the old one or the new one."""

import fcntl
import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from hashlib import blake2b
from pathlib import Path
from typing import Final, TypeVar

import orjson

from agent_service.context.base import REMOVED, Change, DocumentStore
from agent_service.context.interface import Key
from agent_service.context.keys import encode_key
from agent_service.core.calling_thread import run_plain, run_plain_to_its_end
from agent_service.core.errors import ConfigurationError, ContextStoreError

__all__ = ["FileContextStore"]

T = TypeVar("T")

_SUFFIX: Final = ".json"
_LOCKS: Final = ".locks"
_STRIPES: Final = 64
_LONGEST_NAME: Final = 200
"""Bytes; file systems allow 255, and the name of an unfinished file is longer."""
_LONG: Final = "%-"
"""How the name for a long key begins; an encoded character is a percent sign and two digits."""
_EMPTY: Final = "%"
_WITH_KEY: Final = "$file"
"""The one member of a file that holds its key; no document is written like that."""
_UNSAFE: Final = re.compile(rb"[^a-z0-9_-]")
_ENCODED: Final = re.compile(r"%([0-9A-F]{2})")


class FileContextStore(DocumentStore):
    """Keeps contexts in a folder, each in a file that is one JSON document.

    Shared by every process of one machine that opens the folder (network file systems are only as safe as their
    ``flock`` and ``rename``). A file is written under another name, flushed to the disk and renamed, so it is old or
    new, whatever dies; in :meth:`set_many` this holds for each file. Writers of a key take turns by a lock on one of
    64 files; readers never wait. The calls run in threads, and a write costs as much as the disk takes to flush.

    File names hold lower-case letters, digits, ``_`` and ``-``, all else percent-encoded. A digest names a long key,
    which then stands in the file: ``{"$file": {"key": ..., "document": ...}}``. Files of the first release, of two
    lines, are read too.

    :param directory: made when first written to.
    :raises ConfigurationError: for what is no path.
    """

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        super().__init__()
        if not isinstance(directory, str | os.PathLike):
            raise ConfigurationError(f"directory must be a path, got {type(directory).__name__} {directory!r:.80}")
        self._folder = Path(directory)
        self.place = ("file", self._folder.resolve())

    def path_of(self, key: Key) -> Path:
        """Give the file for a key, whether it is there or not."""
        return self._path(encode_key(key))

    async def _read(self, texts: Collection[str]) -> Mapping[str, bytes]:
        def read() -> Mapping[str, bytes]:
            found = ((text, self._load(text)) for text in texts)
            return {text: data for text, data in found if data is not None}

        return await run_plain(read)

    async def _write(self, documents: Mapping[str, bytes], ttl: float) -> None:  # noqa: ARG002 - it is infinity
        await self._locked(documents, lambda: self._save(documents))

    async def _remove(self, texts: Collection[str]) -> int:
        def remove() -> int:
            removed = sum([self._unlink(text) for text in texts])
            if removed:
                _flush(self._folder)
            return removed

        if not await run_plain(self._folder.is_dir):
            return 0
        return await self._locked(texts, remove)

    async def _change(self, text: str, change: Change, ttl: float | None) -> None:  # noqa: ARG002 - infinity or None
        def work() -> None:
            changed = change(self._load(text))
            if changed == REMOVED:
                self._unlink(text)
                _flush(self._folder)
            elif changed is not None:
                self._save({text: changed})

        await self._locked((text,), work)

    async def _texts(self) -> Iterable[str]:
        def names() -> list[str]:
            if not self._folder.is_dir():
                return []
            paths = (each for each in self._folder.iterdir() if each.suffix == _SUFFIX and each.name[0] != ".")
            return [text for text in map(_text_of, paths) if text is not None]

        return await run_plain(names)

    async def _locked(self, texts: Collection[str], work: Callable[[], T]) -> T:
        def run() -> T:
            with self._locks(texts):
                return work()

        return await run_plain_to_its_end(run)

    @contextmanager
    def _locks(self, texts: Iterable[str]) -> Iterator[None]:
        folder = self._folder / _LOCKS
        folder.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            for stripe in sorted({_digest(text)[0] % _STRIPES for text in texts}):
                lock = stack.enter_context((folder / f"{stripe:02}").open("ab"))
                fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _load(self, text: str) -> bytes | None:
        path = self._path(text)
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            return None
        return _parsed(path, content)[1]

    def _save(self, documents: Mapping[str, bytes]) -> None:
        unfinished = [(self._unfinished(text), self._path(text)) for text in documents]
        try:
            for (path, _), (text, data) in zip(unfinished, documents.items(), strict=True):
                _write_flushed(path, _content(text, data))
            for path, final in unfinished:
                path.replace(final)
        except BaseException:
            for path, _ in unfinished:
                path.unlink(missing_ok=True)
            raise
        _flush(self._folder)

    def _unlink(self, text: str) -> bool:
        try:
            self._path(text).unlink()
        except FileNotFoundError:
            return False
        return True

    def _path(self, text: str) -> Path:
        return self._folder / f"{_name(text)}{_SUFFIX}"

    def _unfinished(self, text: str) -> Path:
        """One name a key, used under its lock: what a crash leaves is overwritten, not collected."""
        return self._folder / f".{_name(text)}.unfinished"


def _name(text: str) -> str:
    name = _UNSAFE.sub(lambda match: b"%%%02X" % match[0][0], text.encode()).decode()
    return (name or _EMPTY) if len(name) <= _LONGEST_NAME else _LONG + _digest(text).hex()


def _text_of(path: Path) -> str | None:
    """The key of a file; None for one that was deleted meanwhile, or is not ours."""
    try:
        if path.stem.startswith(_LONG):
            text = _parsed(path, path.read_bytes())[0] or ""
        elif path.stem == _EMPTY:
            text = ""
        else:
            text = _ENCODED.sub(lambda match: chr(int(match[1], 16)), path.stem).encode("latin-1").decode()
    except (FileNotFoundError, UnicodeError):
        return None
    return text if _name(text) == path.stem else None


def _content(text: str, data: bytes) -> bytes:
    if _name(text).startswith(_LONG):
        return b'{"%s":{"key":%s,"document":%s}}\n' % (_WITH_KEY.encode(), orjson.dumps(text), data)
    return b"%s\n" % data


def _parsed(path: Path, content: bytes) -> tuple[str | None, bytes]:
    """The key, where the file tells it, and the document."""
    damaged = ContextStoreError(f"{path} is damaged: one JSON document is expected; restore it or delete it")
    if content[-1:] != b"\n":
        raise damaged
    try:
        if content[:1] == b'"':  # the first release: the key and the document, a line each
            key, _, data = content[:-1].partition(b"\n")
            text = orjson.loads(key)
        elif content[:1] != b"{":
            raise damaged
        elif path.stem.startswith(_LONG):
            whole = orjson.loads(content)[_WITH_KEY]
            text, data = whole["key"], orjson.dumps(whole["document"])
        else:
            text, data = None, content[:-1]
    except (orjson.JSONDecodeError, KeyError, TypeError) as exc:
        raise damaged from exc
    if not data or not isinstance(text, str | None):
        raise damaged
    return text, data


def _write_flushed(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _flush(folder: Path) -> None:
    """Make renames and deletions in the folder survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _digest(text: str) -> bytes:
    return blake2b(text.encode(), digest_size=32).digest()
