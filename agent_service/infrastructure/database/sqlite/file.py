"""A new SQLite file is for this process's user alone; SQLite itself would make it as the umask says.

The files beside it (``-wal``, ``-shm``, ``-journal``) get the permissions of the file itself. An existing
file keeps its own, which may be intended.
"""

import logging
import os
import stat
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs, unquote

from agent_service.core.memo import Memo
from agent_service.core.private_files import create_file

__all__ = ["in_memory", "make_private"]

logger = logging.getLogger("agent_service.database")

_OTHERS: Final = 0o077
_told: Final[Memo[str, None]] = Memo(1000)
"""Files that were warned of."""


def make_private(name: str, options: Mapping[str, Any]) -> None:
    """Make the file that SQLite is about to open, if it would make it; say so where others may use one that is there.

    :param name: what ``sqlite3.connect`` is given.
    :param options: what it is given beside that.
    """
    path = _path_of(name, uri=bool(options.get("uri")))
    if path is None or os.name != "posix":
        return
    with suppress(OSError):  # SQLite's own error says what is wrong with the path
        real = Path(os.path.realpath(path))
        if create_file(real):
            return
        mode = stat.S_IMODE(real.stat().st_mode)
        if mode & _OTHERS and str(real) not in _told.known:
            _told.keep(str(real), None, 0)
            logger.warning("other users may open the SQLite file %s (mode %04o); run: chmod go= %s*", real, mode, real)


def _path_of(name: str, *, uri: bool) -> str | None:
    """Return the path of a file that SQLite would make; None for a database that is no file, or must exist."""
    if not uri or not name.startswith("file:"):
        return None if name in {"", ":memory:"} else name
    place, _, query = name.removeprefix("file:").partition("?")
    if parse_qs(query).get("mode", ["rwc"])[-1] != "rwc" or place == ":memory:":
        return None
    if place.startswith("//"):  # an authority, which may be empty or localhost
        place = "/" + place[2:].partition("/")[2]
    return unquote(place.partition("#")[0]) or None


def in_memory(database: str | None, options: Mapping[str, Any]) -> bool:
    """Whether a file's name, and what the URL says beside it, mean a database that lives in its one connection."""
    return database in {None, "", ":memory:", "file::memory:"} or options.get("mode") == "memory"
