"""What was recorded of each file of tests, kept until that file, its helpers or the package change."""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

__all__ = ["digest_of", "recorded"]


def digest_of(root: Path, files: Iterable[Path]) -> str:
    """Return what the contents of files are told apart by."""
    sha = hashlib.sha1(usedforsecurity=False)
    for file in sorted(files):
        sha.update(f"{file.relative_to(root)}\0".encode() + file.read_bytes())
    return sha.hexdigest()[:12]


def recorded(root: Path, kept: Path, files: Iterable[str]) -> list[dict[str, Any]]:
    """Return what the files of tests run, after running those of which that is not known."""
    folder = kept / "recorded"
    folder.mkdir(parents=True, exist_ok=True)
    package = digest_of(root, (root / "agent_service").rglob("*.py"))
    wanted: dict[str, tuple[Path, str]] = {}
    helpers: dict[str, str] = {}
    for name in sorted(files):
        room = name.split("/")[1]
        if room not in helpers:
            within = root / "tests" / room
            helpers[room] = digest_of(root, set(within.rglob("*.py")) - set(within.rglob("test_*.py")))
        digest = f"{package}-{helpers[room]}-{digest_of(root, [root / name])}"
        wanted[name] = folder / f"{name.replace('/', '-')}.json", digest
    stale = [name for name, (path, digest) in wanted.items() if _digest_in(path) != digest]
    if stale:
        sys.stdout.write(f"recording what {len(stale)} files of tests run ...\n")
        sys.stdout.flush()
        out = kept / "recording.json"
        command = [sys.executable, "-P", str(Path(__file__).with_name("recording.py")), str(out), *stale]
        with (kept / "recording.log").open("wb") as log:
            subprocess.run(command, cwd=root, check=True, stdout=log, env={**os.environ, "PYTHONPATH": str(root)})
        found = json.loads(out.read_text())
        out.unlink()
        for name in stale:
            path, digest = wanted[name]
            path.write_text(json.dumps({"digest": digest, **found.get(name, {"seconds": {}, "lines": {}})}))
    return [json.loads(path.read_text()) for path, _ in wanted.values()]


def _digest_in(path: Path) -> str:
    return str(json.loads(path.read_text())["digest"]) if path.exists() else ""
