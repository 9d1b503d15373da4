"""Reading gzip files line by line, in constant memory, with errors that name file and line."""

import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from agent_service.core.errors import AgentServiceError

__all__ = ["GzipLines", "InputFileError", "open_gzip"]


class InputFileError(AgentServiceError):
    """A file named on the command line cannot be used; the message names the file, the line and the remedy."""


class GzipLines:
    """The lines of a gzip file, line ends included.

    :raises InputFileError: while iterating, if the file is not gzip, ends early or is not UTF-8.
    """

    def __init__(self, path: Path, raw: BinaryIO) -> None:
        self.path = path
        self.line = 0
        self._raw = raw
        self._size = max(path.stat().st_size, 1)

    @property
    def fraction(self) -> float:
        """The fraction of the file that was read, 0 to 1."""
        return min(self._raw.tell() / self._size, 1.0)

    def error(self, problem: str) -> InputFileError:
        """Return an error about the line read last."""
        return InputFileError(f"{self.path}: line {self.line}: {problem}")

    def __iter__(self) -> Iterator[str]:
        try:
            # Only "\n" ends a line: the other line ends of Unicode are text inside JSON strings.
            text = io.TextIOWrapper(gzip.GzipFile(fileobj=self._raw), encoding="utf-8", newline="\n")
            for self.line, each in enumerate(text, 1):
                yield each
        except gzip.BadGzipFile as exc:
            raise self._next_error(f"not a gzip file ({exc}); compress it with gzip") from exc
        except (EOFError, zlib.error) as exc:
            raise self._next_error(f"the gzip file is cut off or damaged ({exc}); fetch it again") from exc
        except UnicodeDecodeError as exc:
            raise self._next_error(f"not UTF-8 ({exc.reason}); convert the file to UTF-8") from exc

    def _next_error(self, problem: str) -> InputFileError:
        self.line += 1
        return self.error(problem)


@contextmanager
def open_gzip(path: Path) -> Iterator[GzipLines]:
    """Open a gzip file for :class:`GzipLines`, and close it.

    :raises InputFileError: when it cannot be opened.
    """
    try:
        raw = path.open("rb")
    except OSError as exc:
        raise InputFileError(f"{path}: cannot be opened ({exc.strerror}); check the path and its permissions") from exc
    with raw:
        yield GzipLines(path, raw)
