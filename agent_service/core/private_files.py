"""Files and folders that only this process's user can access, whatever the umask.

A name is looked up in a folder that was opened and checked, and a link is never followed. So a user who can write to a
parent folder cannot redirect our reads or writes to another place. Opening a named pipe does not block.
"""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from agent_service.core.errors import ConfigurationError
from agent_service.core.logging import logger
from agent_service.core.memo import Memo

__all__ = ["create_file", "flush_folder", "make_folder", "open_folder", "read_file", "write_file"]

_FOLDER: Final = 0o700
_FILE: Final = 0o600
_PIECE: Final = 1 << 20
_OTHERS: Final = 0o077
# Only Unix has these; elsewhere the folder's access list decides.
_NOFOLLOW: Final = getattr(os, "O_NOFOLLOW", 0)
_NO_WAITING: Final = getattr(os, "O_NONBLOCK", 0)

_told: Final[Memo[tuple[int, int], None]] = Memo(1000)
"""Folders about which a warning was logged, by device and number."""


def make_folder(path: Path) -> None:
    """Create a folder and its missing parents, each for this user only; flush the folders that contain them."""
    missing = []
    for each in (path, *path.parents):
        if os.path.lexists(each):
            break
        missing.append(each)
    for each in reversed(missing):
        try:
            each.mkdir(_FOLDER)
        except FileExistsError:  # another process was faster
            continue
        if stat.S_IMODE(each.lstat().st_mode) != _FOLDER:  # a umask may restrict the user too
            each.chmod(_FOLDER)
        descriptor = os.open(each.parent, os.O_RDONLY)
        try:
            flush_folder(descriptor)
        finally:
            os.close(descriptor)


@contextmanager
def open_folder(path: str | Path, *, inside: int | None = None) -> Iterator[int]:
    """Open a folder to use the names in it. If it belongs to this user, other users lose their access to it.

    :param path: may be or contain a link: its owner chose that.
    :param inside: an open folder in which ``path`` is a name; then it must not be a link.
    :raises ConfigurationError: for a folder that everybody can write to and that belongs to another user or has the
        sticky bit, as ``/tmp`` has: other users must keep access to their files there.
    """
    flags = os.O_RDONLY | os.O_DIRECTORY | (0 if inside is None else _NOFOLLOW)
    descriptor = os.open(path, flags, dir_fd=inside)
    try:
        _close_to_others(descriptor, path)
        yield descriptor
    finally:
        os.close(descriptor)


def _close_to_others(descriptor: int, path: str | Path) -> None:
    status = os.fstat(descriptor)
    mode = stat.S_IMODE(status.st_mode)
    if mode & stat.S_ISVTX and mode & stat.S_IWOTH:
        raise ConfigurationError(
            f"{path} is a folder for everybody (mode {mode:04o}), whoever owns it; make a folder of its own in it"
        )
    if status.st_uid == os.geteuid():
        if mode & _OTHERS:
            os.fchmod(descriptor, mode & ~_OTHERS)
    elif mode & stat.S_IWOTH:
        raise ConfigurationError(
            f"{path} belongs to another user and everybody can write to it (mode {mode:04o}), so anybody could replace "
            "what is kept there; make a folder of its own for it"
        )
    elif mode & stat.S_IWGRP and (status.st_dev, status.st_ino) not in _told.known:
        _told.keep((status.st_dev, status.st_ino), None, 0)
        logger.warning(
            "%s belongs to another user and its group can write to it (mode %04o): all of it can replace what is "
            "kept there", path, mode,
        )  # fmt: skip


def read_file(folder: int, name: str) -> bytes:
    """Return the contents of a regular file in a folder.

    :raises FileNotFoundError: there is none.
    :raises OSError: ELOOP for a link, EINVAL for anything else that is no regular file.
    """
    descriptor = os.open(name, os.O_RDONLY | _NOFOLLOW | _NO_WAITING, dir_fd=folder)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "no regular file", name)
        # No file object, which is slower: every read of a document comes through here.
        content = os.read(descriptor, status.st_size + 1)
        while part := os.read(descriptor, _PIECE):
            content += part
        return content
    finally:
        os.close(descriptor)


def write_file(folder: int, name: str, content: bytes) -> None:
    """Write a new file and flush it. An old one, left by a write that died, or a link of that name is removed first."""
    with suppress(FileNotFoundError):
        os.unlink(name, dir_fd=folder)
    descriptor = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _NOFOLLOW, _FILE, dir_fd=folder)
    with os.fdopen(descriptor, "wb") as file:
        os.fchmod(descriptor, _FILE)
        file.write(content)
        file.flush()
        os.fsync(descriptor)


def create_file(path: Path) -> bool:
    """Create an empty file for this user only; return False if the name is taken."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _NOFOLLOW, _FILE)
    except FileExistsError:
        return False
    try:
        os.fchmod(descriptor, _FILE)
    finally:
        os.close(descriptor)
    return True


def flush_folder(folder: int) -> None:
    """Make renames and deletions in an open folder survive a power cut."""
    os.fsync(folder)
