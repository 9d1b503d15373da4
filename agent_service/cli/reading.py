"""Reading files line by line, plain or gzip, in constant memory, with errors that name file and line."""

import gzip
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from agent_service.core.errors import AgentServiceError

__all__ = ["InputFileError", "Lines", "open_lines"]

_GZIP = b"\x1f\x8b"
_SIZE_FIELD = 4
"""Bytes at the end of a gzip member that say how long its content is, modulo 2**32 (RFC 1952)."""


class InputFileError(AgentServiceError):
    """A file named on the command line cannot be used; the message names the file, the line and the remedy."""


class Lines:
    """The lines of a file, line ends included; gzip is recognised by its first bytes.

    :raises InputFileError: while iterating, if a gzip file ends early, or the text is not UTF-8.
    """

    def __init__(self, path: Path, raw: BinaryIO) -> None:
        self.path = path
        self.line = 0
        self._raw = raw
        self._size = max(os.fstat(raw.fileno()).st_size, 1)
        self._zipped = raw.read(len(_GZIP)) == _GZIP
        self._done = 0
        self._content = self._size
        if self._zipped and self._size > _SIZE_FIELD:
            raw.seek(-_SIZE_FIELD, os.SEEK_END)
            self._content = max(int.from_bytes(raw.read(_SIZE_FIELD), "little"), 1)
        raw.seek(0)

    @property
    def fraction(self) -> float:
        """The fraction of the file whose lines were given, 0 to 1.

        Of a gzip file that has several members or holds more than 4 GiB, the fraction that was read.
        """
        return min(self._done / self._content, self._raw.tell() / self._size if self._zipped else 1.0, 1.0)

    def error(self, problem: str) -> InputFileError:
        """Return an error about the line given last."""
        return InputFileError(f"{self.path}: line {self.line}: {problem}")

    def __iter__(self) -> Iterator[str]:
        # Of binary files only "\n" ends a line: the other line ends of Unicode are text inside JSON strings.
        content = cast("BinaryIO", gzip.GzipFile(fileobj=self._raw)) if self._zipped else self._raw
        try:
            for self.line, each in enumerate(content, 1):
                self._done += len(each)
                yield each.decode()
        except (EOFError, zlib.error, gzip.BadGzipFile) as exc:
            self.line += 1
            raise self.error(f"the gzip file is cut off or damaged ({exc}); fetch it again") from exc
        except UnicodeDecodeError as exc:
            raise self.error(f"not UTF-8 ({exc.reason}); convert the file to UTF-8") from exc


@contextmanager
def open_lines(path: Path) -> Iterator[Lines]:
    """Open a file for :class:`Lines`, and close it.

    :raises InputFileError: when it cannot be opened, or is no file.
    """
    try:
        raw = path.open("rb")
    except OSError as exc:
        raise InputFileError(f"{path}: cannot be opened ({exc.strerror}); check the path and its permissions") from exc
    with raw:
        if not raw.seekable():
            raise InputFileError(f"{path}: cannot be read twice, as pipes cannot; name a file")
        yield Lines(path, raw)
