"""What a power cut may not take: contents are flushed before they get their name, and names before a call returns."""

import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from agent_service.context.files.store import FileContextStore


class Disk:
    """Notes each flush and each renaming or deletion, in order, by the inodes of files."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.steps: list[tuple[str, int, int]] = []
        monkeypatch.setattr(os, "fsync", self._noting_flush(os.fsync))
        for name in ("rename", "replace"):
            monkeypatch.setattr(os, name, self._noting("named", getattr(os, name)))
        for name in ("unlink", "remove"):
            monkeypatch.setattr(os, name, self._noting("deleted", getattr(os, name)))

    def _noting_flush(self, flush: Callable[..., None]) -> Callable[..., None]:
        def noting(descriptor: int) -> None:
            flush(descriptor)
            found = os.fstat(descriptor)
            self.steps.append(("flushed", found.st_ino, found.st_size))

        return noting

    def _noting(self, step: str, call: Callable[..., None]) -> Callable[..., None]:
        def noting(path: Any, *args: Any, **kwargs: Any) -> None:
            # Names are looked up in an open folder.
            folder = kwargs.get("src_dir_fd", kwargs.get("dir_fd"))
            try:
                found = os.stat(path, dir_fd=folder, follow_symlinks=False)
            except FileNotFoundError:
                call(path, *args, **kwargs)
                return
            call(path, *args, **kwargs)
            self.steps.append((step, found.st_ino, found.st_size))

        return noting

    def places(self, step: str, file: Path) -> list[int]:
        """When that happened to a file."""
        inode = file.stat().st_ino
        return [place for place, (what, which, _) in enumerate(self.steps) if (what, which) == (step, inode)]


@pytest.fixture
def store(tmp_path: Path) -> FileContextStore:
    return FileContextStore(tmp_path / "contexts")


WRITES: dict[str, Callable[[FileContextStore], Awaitable[Any]]] = {
    "set": lambda store: store.set("a", {"v": "x" * 100}),
    "update": lambda store: store.update("a", {"v": "x" * 100}),
    "compare and set": lambda store: store.compare_and_set("a", {"v": "x" * 100}, expected=None),
    "set many": lambda store: store.set_many({"b": {}, "a": {"v": "x" * 100}, "c": {}}),
}


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
async def test_a_context_is_flushed_whole_before_it_takes_its_name_and_its_name_afterwards(
    store: FileContextStore, monkeypatch: pytest.MonkeyPatch, write: Callable[[FileContextStore], Awaitable[Any]]
):
    disk = Disk(monkeypatch)
    await write(store)
    file = store.path_of("a")
    (named,) = disk.places("named", file)
    contents = [place for place in disk.places("flushed", file) if place < named]
    names = [place for place in disk.places("flushed", file.parent) if place > named]

    assert contents, "not flushed before it was named"
    assert disk.steps[contents[-1]][2] == file.stat().st_size, "flushed before it was whole"
    assert names, "the folder was not flushed after it was named"


@pytest.mark.parametrize("many", [False, True])
async def test_a_deletion_is_flushed(store: FileContextStore, monkeypatch: pytest.MonkeyPatch, many: bool):
    await store.set("a", {"v": 1})
    inode = store.path_of("a").stat().st_ino
    disk = Disk(monkeypatch)
    await (store.delete_many(["a", "nobody"]) if many else store.delete("a"))
    deleted = [place for place, (what, which, _) in enumerate(disk.steps) if (what, which) == ("deleted", inode)]

    assert deleted
    assert disk.places("flushed", store.path_of("a").parent)[-1] > deleted[-1]
