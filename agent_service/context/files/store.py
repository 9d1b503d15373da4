"""Context in a folder: one file a key, written so that a crash leaves the old one or the new one."""

import asyncio
import errno
import math
import os
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, TypeVar

import orjson

from agent_service.context.base import REMOVED, Change, DocumentStore
from agent_service.context.files.locks import FileLocks, digest
from agent_service.context.interface import Key
from agent_service.context.keys import encode_key
from agent_service.core.calling_thread import run_plain
from agent_service.core.errors import ConfigurationError, ContextStoreError
from agent_service.core.plain_threads import PlainThreads
from agent_service.core.private_files import flush_folder, open_folder, read_file, write_file

__all__ = ["FileContextStore"]

T = TypeVar("T")

_SUFFIX: Final = ".json"
_LONGEST_NAME: Final = 200
"""Bytes; file systems allow 255, and the name of an unfinished file is longer."""
_LONG: Final = "%-"
"""How the name for a long key begins; an encoded character is a percent sign and two digits."""
_EMPTY: Final = "%"
_WITH_KEY: Final = "$file"
"""The one member of a file that holds its key; no document is written like that."""
_THREADS: Final = 4
"""For reads, and as many for writes, which may wait for the disk."""
_UNSAFE: Final = re.compile(rb"[^a-z0-9_-]")
_ENCODED: Final = re.compile(r"%([0-9A-F]{2})")


class FileContextStore(DocumentStore):
    """Keeps contexts in a folder, each in a file that is one JSON document.

    Shared by every process of one machine that opens the folder (network file systems are only as safe as their
    ``flock`` and ``rename``). A file is written under another name, flushed to the disk and renamed, so it is old or
    new, whatever dies; in :meth:`set_many` this holds for each file. Writers of a key take turns by a lock on one of
    64 files; readers need none. The calls run in a few threads of the store's own; a write costs as much as the disk
    takes to flush.

    Folder and files are for this process's user alone, whatever the umask; a folder of this user that is there already
    is closed to others (``chmod go=``). A folder that everybody can write to is refused if it is another user's, or has
    the sticky bit, as ``/tmp`` has. No link in the folder is followed. So share a folder between processes of one user,
    and give each store a folder of its own.

    File names hold lower-case letters, digits, ``_`` and ``-``, all else percent-encoded. A digest names a long key,
    which then stands in the file: ``{"$file": {"key": ..., "document": ...}}``. Files of the first release, of two
    lines, are read too.

    :param directory: made when first written to.
    :param timeout: seconds that a write waits for others of its key, and a read for the disk. What the disk has begun
        to write is waited for.
    :raises ConfigurationError: for what is no path, or no number of seconds above 0.
    """

    def __init__(self, directory: str | os.PathLike[str], *, timeout: float = 10.0) -> None:
        super().__init__()
        self._folder, resolved = _checked_path(directory)
        if isinstance(timeout, bool) or not isinstance(timeout, int | float) or not 0 < timeout < math.inf:
            raise ConfigurationError(f"timeout must be a number of seconds above 0, got {timeout!r:.80}")
        self._timeout = timeout
        self._locks = FileLocks(self._folder, timeout)
        self._readers = PlainThreads(_THREADS, "file-store-read")
        self._writers = PlainThreads(_THREADS, "file-store-write")
        self.place = ("file", resolved)

    def path_of(self, key: Key) -> Path:
        """Return the file for a key, whether it is there or not."""
        return self._path(encode_key(key))

    async def _read(self, texts: Collection[str]) -> Mapping[str, bytes]:
        def read() -> Mapping[str, bytes]:
            with suppress(FileNotFoundError), open_folder(self._folder) as folder:
                found = ((text, self._load(folder, text)) for text in texts)
                return {text: data for text, data in found if data is not None}
            return {}

        return await self._in_time(read)

    async def _write(self, documents: Mapping[str, bytes], ttl: float) -> None:  # noqa: ARG002 - it is infinity
        def write() -> None:
            with open_folder(self._folder) as folder:
                self._save(folder, documents)

        await self._locks.run(self._writers, documents, write)

    async def _remove(self, texts: Collection[str]) -> int:
        def remove() -> int:
            with open_folder(self._folder) as folder:
                removed = sum([_unlink(folder, text) for text in texts])
                if removed:
                    flush_folder(folder)
                return removed

        if not await self._in_time(self._folder.is_dir):
            return 0
        return await self._locks.run(self._writers, texts, remove)

    async def _change(self, text: str, change: Change, ttl: float | None) -> None:  # noqa: ARG002 - infinity or None
        def work() -> None:
            with open_folder(self._folder) as folder:
                changed = change(self._load(folder, text))
                if changed == REMOVED:
                    _unlink(folder, text)
                    flush_folder(folder)
                elif changed is not None:
                    self._save(folder, {text: changed})

        await self._locks.run(self._writers, (text,), work)

    async def _texts(self) -> Iterable[str]:
        def names() -> list[str]:
            with suppress(FileNotFoundError), open_folder(self._folder) as folder:
                listed = os.listdir(folder)  # noqa: PTH208 - an open folder has no path
                found = (each for each in listed if each.endswith(_SUFFIX) and each[0] != ".")
                return [text for name in found if (text := self._text_of(folder, name)) is not None]
            return []

        return await self._in_time(names)

    async def aclose(self) -> None:
        self._readers.close()
        self._writers.close()

    async def _in_time(self, work: Callable[[], T]) -> T:
        """Run what only reads in a thread; what does not end in time is left to its thread."""
        try:
            async with asyncio.timeout(self._timeout):
                return await run_plain(self._readers, work)
        except TimeoutError as exc:
            raise ContextStoreError(
                f"{self._folder} could not be read within {self._timeout:g} s: its disk does not answer, or too many "
                "calls wait for it"
            ) from exc

    def _load(self, folder: int, text: str) -> bytes | None:
        found = self._read_file(folder, _name(text))
        return None if found is None else found[1]

    def _read_file(self, folder: int, stem: str) -> tuple[str | None, bytes] | None:
        """The key, where the file tells it, and the document; None where there is no file."""
        name = f"{stem}{_SUFFIX}"
        try:
            content = read_file(folder, name)
        except FileNotFoundError:
            return None
        except OSError as exc:
            if exc.errno not in {errno.ELOOP, errno.EINVAL}:
                raise
            raise ContextStoreError(
                f"{self._folder / name} is a link or no regular file, which this store neither makes nor follows; "
                "remove it"
            ) from exc
        try:
            return _parsed(stem, content)
        except (ValueError, KeyError, TypeError) as exc:
            raise ContextStoreError(
                f"{self._folder / name} is damaged: one JSON document is expected; restore it or delete it"
            ) from exc

    def _text_of(self, folder: int, name: str) -> str | None:
        """The key of a file; None for one that was deleted meanwhile, or is not ours."""
        stem = name.removesuffix(_SUFFIX)
        try:
            if stem.startswith(_LONG):
                found = self._read_file(folder, stem)
                text = "" if found is None else found[0] or ""
            elif stem == _EMPTY:
                text = ""
            else:
                text = _ENCODED.sub(lambda match: chr(int(match[1], 16)), stem).encode("latin-1").decode()
        except UnicodeError:
            return None
        return text if _name(text) == stem else None

    def _save(self, folder: int, documents: Mapping[str, bytes]) -> None:
        names = [_name(text) for text in documents]
        try:
            for name, (text, data) in zip(names, documents.items(), strict=True):
                write_file(folder, _unfinished(name), _content(text, data))
            for name in names:
                os.rename(_unfinished(name), f"{name}{_SUFFIX}", src_dir_fd=folder, dst_dir_fd=folder)
        except BaseException:
            for name in names:
                with suppress(OSError):
                    os.unlink(_unfinished(name), dir_fd=folder)
            raise
        flush_folder(folder)

    def _path(self, text: str) -> Path:
        return self._folder / f"{_name(text)}{_SUFFIX}"


def _checked_path(directory: Any) -> tuple[Path, Path]:
    """Return a folder as it was given, and without links."""
    try:
        path = Path(directory)
        return path, path.resolve()
    except (TypeError, ValueError) as exc:  # no path, a path of bytes; what no system can name
        raise ConfigurationError(f"directory must be a path, got {type(directory).__name__} {directory!a:.80}") from exc


def _unfinished(name: str) -> str:
    """One name a key, used under its lock: what a crash leaves is removed by the next write, not collected."""
    return f".{name}.unfinished"


def _unlink(folder: int, text: str) -> bool:
    try:
        os.unlink(f"{_name(text)}{_SUFFIX}", dir_fd=folder)
    except FileNotFoundError:
        return False
    return True


def _name(text: str) -> str:
    name = _UNSAFE.sub(lambda match: b"%%%02X" % match[0][0], text.encode()).decode()
    return (name or _EMPTY) if len(name) <= _LONGEST_NAME else _LONG + digest(text).hex()


def _content(text: str, data: bytes) -> bytes:
    if _name(text).startswith(_LONG):
        return b'{"%s":{"key":%s,"document":%s}}\n' % (_WITH_KEY.encode(), orjson.dumps(text), data)
    return b"%s\n" % data


def _parsed(stem: str, content: bytes) -> tuple[str | None, bytes]:
    """The key, where the file tells it, and the document.

    :raises ValueError: for content that is damaged; or KeyError, or TypeError.
    """
    if content[-1:] != b"\n":
        raise ValueError("it does not end with a line")
    text: str | None = None
    if content[:1] == b'"':  # the first release: the key and the document, a line each
        key, _, data = content[:-1].partition(b"\n")
        text = orjson.loads(key)
    elif content[:1] != b"{":
        raise ValueError("it does not begin with a document")
    elif stem.startswith(_LONG):
        whole = orjson.loads(content)[_WITH_KEY]
        text, data = whole["key"], orjson.dumps(whole["document"])
    else:
        data = content[:-1]
    if not data or not isinstance(text, str | None):
        raise ValueError("it holds no document")
    return text, data
